"""Disk, host memory and hours of a whole config, by hand."""

import json

import jax
import pytest
from ml_collections import ConfigDict

from stair_jax.errors import UserError
from stair_jax.planning.figures import Basis, Figure, largest, total_of
from stair_jax.planning.needs import Needs, total
from stair_jax.planning.rates import EXPORT, IMPORT, MEASURED_ON, MFU, SEARCH, Amounts
from stair_jax.planning.topology import Topology
from stair_jax.run.recipe import format_recipe, recipe_json, recipe_needs
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
PARAMETERS = 8_030_261_248 + 4 * 2 * 4096  # of the checkpoint, and rows of embedding and head
LAYERS = 6_979_321_856  # in the kernels of all layers
PROMPTS = 120


def run_of(**sections):
    """One iteration on 8B shapes; prompts are counted, SFT rows are not."""
    training = {"dtype": "bfloat16", "remat": "attention_mlp", "hf_dtype": "bfloat16"}
    values = {
        "stages": (
            "files", "model:base", "sft", "search", "preferences:pairs", "dpo", "prm", "export",
        ),
        "files": {"sft": "nowhere.jsonl", "prompts": ("nothing.jsonl",)},
        "model": {"init": "runs/nowhere", "architecture": LLAMA, "dtype": "bfloat16"},
        "sft": {"model": "base", "data": "files", "epochs": 3.0, **training},
        "search": {
            "model": "sft", "prompts": "files", "num_prompts": PROMPTS, "dtype": "bfloat16",
            "context_tokens": 512,
        },
        "preferences": {"trees": "search"},
        "dpo": {"model": "sft", "preferences": "pairs", **training},
        "prm": {"model": "dpo", "preferences": ("pairs",), **training},
        "export": {"model": "dpo"},
    }  # fmt: skip
    return read_config(ConfigDict({**values, **sections}), STAGES)


def needs_of(config, amounts=None, chip=MEASURED_ON):
    topology = Topology("h200:1", chip, jax.devices()[:1])
    return recipe_needs(config, topology, amounts or Amounts())


@pytest.fixture(scope="module")
def needs():
    return needs_of(run_of())


def test_the_disk_at_its_peak_and_what_is_left(needs):
    model = 2 * PARAMETERS
    state = 12 * PARAMETERS  # float32: parameters and two moments
    assert needs["base"].disk.value == needs["base"].kept.value == model
    assert needs["sft"].disk.value == pytest.approx(model + 2 * state, rel=1e-6)
    assert needs["sft"].kept.value == model
    totals = total(needs)
    assert totals.fullest == "prm" or totals.fullest == "dpo"
    left = sum(each.kept.value for each in needs.values())
    assert totals.kept.value == pytest.approx(left)
    assert totals.disk.value > totals.kept.value


def test_host_memory_holds_a_copy_of_the_state_while_it_is_saved(needs):
    without = needs_of(run_of(sft={"model": "base", "data": "files", "checkpoint_every": 0}))
    assert needs["sft"].host.value - 12 * PARAMETERS < 10e9
    assert without["sft"].host.value < 12e9
    assert needs["sft"].host.basis == Basis.ASSUMED  # its text is: how many rows there are


def test_the_hours_of_sft_are_its_flops_at_the_measured_rate(needs):
    amounts = Amounts()
    tokens = 3 * amounts.rows * amounts.row_tokens
    products = 6 * LAYERS + 6 * 4096 * (128256 + 4)
    attention = 6 * 32 * 4096 * (amounts.row_tokens + 1)  # half of the square, forward and back
    seconds = tokens * (products + attention) / (989e12 * MFU["attention_mlp"].value)
    files = 4 * PARAMETERS / IMPORT.value + 2 * PARAMETERS / EXPORT.value
    assert needs["sft"].seconds.value == pytest.approx(seconds + files, rel=1e-3)
    assert needs["sft"].seconds.basis == Basis.ASSUMED
    assert "20,000? rows x 3 epochs" in needs["sft"].work


def test_an_amount_that_is_given_counts_in_proportion():
    config = run_of(stages=("files", "model:base", "sft"))
    one, two = (
        needs_of(config, Amounts(rows=rows))["sft"].seconds.value for rows in (10**6, 2 * 10**6)
    )
    assert two == pytest.approx(2 * one, rel=1e-3)


def test_rows_go_on_from_stage_to_stage(needs):
    assert needs["search"].rows["trees.jsonl.gz"] == Figure(PROMPTS)
    assert needs["search"].work == f"{PROMPTS} prompts x 200 iterations"
    pairs = PROMPTS * Amounts().pairs
    assert needs["pairs"].rows["dpo.jsonl"] == Figure(pairs, Basis.ASSUMED)
    assert needs["dpo"].work.startswith(f"{pairs:.0f}? pairs")
    assert needs["prm"].work.startswith(f"{pairs:.0f}? pairs")


def test_a_search_of_the_measured_kind_has_the_measured_rate(monkeypatch):
    """480 trees in 512 slots, whose cache is large enough: 22 iterations/s."""
    sizes = {"slots": 512, "cache_tokens": 1024 * 512, "vocab_multiple": 1}
    config = run_of(runtime=sizes, stages=("files", "model:base", "sft", "search"))
    found = needs_of(config)["search"]
    reading = 2 * PARAMETERS / IMPORT.value
    rate = PROMPTS * 200 / (found.seconds.value - reading)
    assert rate == pytest.approx(SEARCH["none"].value, rel=0.01)
    assert found.seconds.basis == Basis.MEASURED
    fast = run_of(
        runtime=sizes,
        stages=config_stages(config),
        search={"model": "sft", "prompts": "files", "num_prompts": 1000, "dtype": "bfloat16"},
    )
    assert needs_of(fast)["search"].seconds.value > found.seconds.value


def config_stages(config):
    return tuple(entry.label for entry in config.stages)


def test_other_chips_are_scaled_and_unknown_ones_tell_no_time():
    config = run_of(stages=("files", "model:base", "sft", "search"))
    half = type(MEASURED_ON)("other", 1e12, MEASURED_ON.flops / 2, MEASURED_ON.bandwidth / 2)
    here, there = needs_of(config), needs_of(config, chip=half)
    files = 2 * PARAMETERS / IMPORT.value
    assert there["search"].seconds.value - files == pytest.approx(
        2 * (here["search"].seconds.value - files)
    )
    assert there["base"].seconds.basis == Basis.SCALED
    assert here["base"].seconds.basis == Basis.MEASURED
    unknown = needs_of(config, chip=type(MEASURED_ON)("cpu", 1e12))
    assert unknown["sft"].seconds is None
    assert total(unknown).unknown == ("sft", "search")


def test_sums_are_as_sure_as_their_least_sure_part():
    counted, assumed = Figure(2.0), Figure(3.0, Basis.ASSUMED)
    assert counted + assumed == Figure(5.0, Basis.ASSUMED)
    assert counted * assumed == Figure(6.0, Basis.ASSUMED)
    assert counted * 2 == Figure(4.0)
    assert total_of([counted, counted]) == Figure(4.0)
    assert largest(counted, assumed) == assumed


def test_a_stage_that_does_not_fit_is_left_out_where_that_is_known():
    config = run_of(runtime={"training_mesh": {"fsdp": 64}}, stages=("files", "model:base", "sft"))
    with pytest.raises(UserError, match=r"stage sft: runtime\.training_mesh"):
        needs_of(config)
    topology = Topology("h200:1", MEASURED_ON, jax.devices()[:1])
    assert recipe_needs(config, topology, Amounts(), ["sft"])["sft"] == Needs(seconds=None)


def test_the_table_is_as_wide_as_a_terminal_and_the_json_has_it_all(needs):
    text = format_recipe(needs)
    assert max(map(len, text.splitlines())) <= 100
    assert "workdir: " in text and "rate of sft, dpo, prm: 0.561 of the peak (measured" in text
    found = json.loads(json.dumps(recipe_json(needs)))
    assert [stage["stage"] for stage in found["stages"]] == list(needs)
    assert found["stages"][2]["seconds"]["basis"] == "assumed"
    assert found["total"]["disk"]["value"] == total(needs).disk.value
