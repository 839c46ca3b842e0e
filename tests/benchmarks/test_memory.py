"""The comparison of predicted and measured memory, with a small program on this machine."""

import json

import pytest

from benchmarks import memory
from stair_jax.parallel.chips import GIB
from stair_jax.planning.program import compile_program


@pytest.fixture(scope="module")
def small():
    """A case of seconds on a CPU."""
    overrides = ("pretrain.vocab_size=300", "pretrain.num_layers=1", "pretrain.max_length=64")
    return memory.Case("small", "pocket_base", "pretraining step", overrides)


def test_every_case_is_of_a_recipe_that_has_such_a_program():
    topology = memory.get_topology("local")
    for case in memory.CASES:
        if "lora" not in str(case.overrides):
            assert memory.program_of(case, topology).name.startswith(case.program)


def test_a_program_is_compiled_and_run(small, capsys):
    memory.measure(small)
    line = json.loads(capsys.readouterr().out)
    assert line["compiled"] > line["compiled_arguments"] > 0
    assert line["workspaces"] == [] and "reason" not in line


def test_the_table_has_the_ratio_of_what_was_predicted_and_measured():
    line = {"case": "a", "program": "b", "predicted": 3 * GIB, "measured": 2 * GIB}
    assert memory.table([line]).splitlines()[2] == "| a | b | 3.00 | - | 2.00 | 1.500 |"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "program", "measured"),
    [("0.5B, 16 rows", "SFT", 17805079296), ("8B bf16, reference", "DPO ref", 17247651072)],
)
def test_predictions_agree_with_peaks_of_an_h200(gpus, name, program, measured):
    """The peaks are of 2026-11-30, jax 0.11.2 (docs/plans.md)."""
    (case,) = [case for case in memory.CASES if case[:3:2] == (name, program)]
    footprint = compile_program(memory.program_of(case, gpus("h200"))).footprint
    assert footprint.total == pytest.approx(measured, rel=0.01)
