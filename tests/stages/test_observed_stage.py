"""Held-out rows and text samples of the stages that train."""

import dataclasses

import jax
import numpy as np
import pytest

from stair_jax.data.held_out import split_held_out
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.planning.program import compile_program
from stair_jax.run.context import PlanContext
from stair_jax.run.runtime import Runtime
from stair_jax.stages import Dpo, Prm, Sft
from stair_jax.storage import read_json, read_jsonl, write_jsonl
from stair_jax.text.steps import format_answer, format_output

COMMON = {
    "epochs": 2.0,
    "batch_size": 4,
    "max_length": 160,
    "microbatch_rows": 2,
    "learning_rate": 2e-3,
    "eval_every": 2,
    "samples_every": 2,
}
ROWS = 11
HELD_OUT = split_held_out([f"{i} + 2?" for i in range(ROWS)], 3).held_out
SFT = Sft(**COMMON, held_out=3, reader="datasets")
DPO = Dpo(**COMMON, held_out=3, beta=0.5)
PRM = Prm(**COMMON, held_out=0.3)


@pytest.fixture
def run(make_stage_inputs, make_context, tmp_path):
    """`run(stage, name, change)`: its folder, where `change` edits the rows of its file."""

    def run(stage, name, change=lambda rows: None, **runtime):
        inputs = make_stage_inputs(tmp_path / f"inputs of {name}", rows=ROWS)
        path = inputs / "data" / stage.file
        rows = list(read_jsonl(path))
        change(rows)
        write_jsonl(path, rows)
        data = "data" if isinstance(stage, Sft) else "preferences"
        many = isinstance(stage, Prm)
        sources = {"model": inputs / "model", data: inputs / "data"}
        if many:
            sources[data] = [inputs / "data"]
        context = make_context(tmp_path / name, sources, **runtime)
        stage.run(context)
        return context.folder

    return run


def weights(folder):
    return (folder / "hf" / "model.safetensors").read_bytes()


def evaluations(folder):
    rows = read_jsonl(folder / "metrics.jsonl")
    return [row for row in rows if any(name.startswith("eval/") for name in row)]


def samples(folder):
    return list(read_jsonl(folder / "samples.jsonl"))


def test_held_out_rows_are_evaluated_and_never_trained_on(run):
    """Other answers in the held-out rows change their loss and no bit of the weights."""

    def change(rows):
        assert rows[HELD_OUT[0]]["prompt"] == f"{HELD_OUT[0]} + 2?"
        for number in HELD_OUT:
            rows[number]["answer"] = format_answer([("Other", "Nothing alike.")], "9")

    plain, changed = run(SFT, "plain"), run(SFT, "changed", change)
    assert weights(plain) == weights(changed)
    before, after = evaluations(plain), evaluations(changed)
    # Eight rows to train on, two passes in batches of four: four steps.
    assert [row["step"] for row in before] == [row["step"] for row in after] == [1, 3]
    assert before[1]["eval/loss"] < before[0]["eval/loss"]
    assert before[0]["eval/loss"] != after[0]["eval/loss"]
    assert set(before[0]) == {"step", "eval/loss"}
    unobserved = dataclasses.replace(SFT, eval_every=0, samples_every=0)
    folder = run(unobserved, "unobserved")
    assert weights(folder) == weights(plain)
    assert [row["step"] for row in evaluations(folder)] == [3]
    assert not (folder / "samples.jsonl").exists()


def test_samples_of_sft_are_answers_to_held_out_prompts_in_turn(run, capsys):
    found = samples(run(SFT, "sft"))
    assert [row["step"] for row in found] == [1, 1, 3, 3]
    turns = [f"{HELD_OUT[place]} + 2?" for place in (0, 1, 2, 0)]
    assert [row["prompt"] for row in found] == turns
    for row in found:
        assert row["sample"] == "answer" and row["tokens"] > 0
        assert row["reference"] == format_answer([("Problem analysis", "It is a sum.")], "4")
    said = [line for line in capsys.readouterr().err.splitlines() if "sample of step" in line]
    assert len(said) == 4 and said[0].startswith("sft: sample of step 1, answer: prompt '")


def test_prompts_that_are_too_long_for_samples_are_said(run, capsys):
    def change(rows):
        for row in rows:
            row["prompt"] = "what is " + "1 + " * 20 + row["prompt"]

    folder = run(dataclasses.replace(SFT, overlong="truncate"), "sft", change)
    assert "no samples: no prompt has at most 80 tokens" in capsys.readouterr().err
    assert not (folder / "samples.jsonl").exists()


def test_the_loss_of_held_out_pairs_is_that_of_both_layouts(run):
    def change(rows):
        for number in HELD_OUT:
            rows[number]["rejected"] = "\n\n" + format_output("nothing at all")

    trees = run(DPO, "trees")
    pairs = run(dataclasses.replace(DPO, layout="pairs"), "pairs")
    changed = run(DPO, "changed", change)
    assert weights(changed) == weights(trees)
    assert [row["step"] for row in evaluations(trees)] == [1, 3]
    for one, other in zip(evaluations(trees), evaluations(pairs), strict=True):
        assert {"eval/loss", "eval/accuracy", "eval/margin"} < set(one)
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert evaluations(changed)[1]["eval/margin"] != evaluations(trees)[1]["eval/margin"]


def test_a_sample_of_dpo_is_a_pair_with_its_rewards_and_values(run):
    def change(rows):
        for row in rows:
            row |= {"chosen_value": 0.75, "rejected_value": -0.5}

    folder = run(dataclasses.replace(DPO, held_out=1, batch_size=5), "dpo", change)
    found = samples(folder)
    assert [row["step"] for row in found] == [1, 3]
    number = split_held_out([f"{i} + 2?" for i in range(ROWS)], 1).held_out[0]
    for row, evaluated in zip(found, evaluations(folder), strict=True):
        assert row["prompt"] == f"{number} + 2?"
        assert row["chosen"].endswith(format_output("4"))
        assert row["rejected"].endswith(format_output("5"))
        assert "It is a sum." in row["path"]
        assert (row["chosen_value"], row["rejected_value"]) == (0.75, -0.5)
        # The only held-out pair: its margin is that of the evaluation.
        assert row["margin"] == pytest.approx(evaluated["eval/margin"], rel=1e-3, abs=1e-5)
        assert row["margin"] == pytest.approx(row["chosen_reward"] - row["rejected_reward"])
    assert found[1]["margin"] > 0


def test_prm_is_evaluated_on_the_pairs_that_it_validates_with(run):
    folder = run(PRM, "prm")
    found = evaluations(folder)
    assert [row["step"] for row in found] == [1, 3]
    assert {"eval/loss", "eval/accuracy"} < set(found[0])
    assert found[-1]["eval/accuracy"] == read_json(folder / "validation.json")["accuracy"]
    (first, second) = samples(folder)
    assert first["prompt"] != second["prompt"] and first["chosen"].endswith(format_output("4"))
    for row in (first, second):
        assert row["margin"] == pytest.approx(row["chosen_score"] - row["rejected_score"])
        assert row["chosen_value"] is None
    plain = run(dataclasses.replace(PRM, eval_every=0, samples_every=0), "plain")
    assert not evaluations(plain) and weights(plain) == weights(folder)


def test_evaluations_and_samples_agree_on_eight_devices(run):
    stage = dataclasses.replace(SFT, microbatch_rows=8, epochs=1.0)
    one, eight = run(stage, "one"), run(stage, "eight", training_mesh={"fsdp": 8})
    for row, other in zip(evaluations(one), evaluations(eight), strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    assert [row["prompt"] for row in samples(one)] == [row["prompt"] for row in samples(eight)]


@pytest.mark.parametrize("kind", [Sft, Dpo])
def test_settings_that_cannot_be(kind):
    with pytest.raises(UserError, match="eval_every is 5, and there is nothing to evaluate: set"):
        kind(eval_every=5)
    with pytest.raises(UserError, match=r"held_out is 2\.5: it must be a share below 1, or a"):
        kind(held_out=2.5)
    assert "held_out" not in kind().identity()
    assert kind(held_out=0.1).identity()["held_out"] == 0.1


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (SFT, {"SFT evaluation", "sampled answers", "SFT step"}),
        (DPO, {"DPO reference", "DPO evaluation", "DPO step"}),
        (PRM, {"PRM validation", "PRM evaluation", "PRM step"}),
    ],
)
def test_a_plan_has_the_passes_of_what_is_observed(stage, names, make_stage_inputs, tmp_path):
    hf = make_stage_inputs(tmp_path, rows=1) / "model" / "hf"
    model, devices = huggingface.load_config(hf), jax.devices()[:2]
    runtime = Runtime(training_mesh={"fsdp": 2})
    programs = stage.programs(PlanContext("name", runtime, devices, devices, {"model": [model]}))
    assert {program.name.partition(":")[0] for program in programs} == names
    for program in programs:
        assert compile_program(program).footprint is not None
        assert np.isfinite(program.flops) and program.flops > 0
