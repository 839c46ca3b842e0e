"""What a plan says of `synthesize`: an answer is reckoned as an iteration of a search."""

import jax
import pytest
from ml_collections import ConfigDict

from stair_jax.planning.figures import Basis, Figure
from stair_jax.planning.rates import MEASURED_ON, Amounts
from stair_jax.planning.topology import Topology
from stair_jax.run.context import PlanContext
from stair_jax.run.recipe import recipe_needs
from stair_jax.run.run_config import read_config
from stair_jax.run.runtime import Runtime
from stair_jax.stages import STAGES, Search, Synthesize
from stair_jax.testing.tiny_models import tiny_config

SIZES = {"context_tokens": 512, "dtype": "bfloat16"}
ANSWERS = {"max_prompt_tokens": 256, "max_answer_tokens": 256, **SIZES}


def run_of(**synthesize):
    values = {
        "stages": ("files", "model:base", "search", "synthesize", "sft", "dpo"),
        "files": {"prompts": ("nothing.jsonl",)},
        "model": {
            "init": "runs/nowhere",
            "architecture": "meta-llama/Llama-3.1-8B-Instruct",
            "dtype": "bfloat16",
        },
        "search": {
            "model": "base", "prompts": "files", "num_prompts": 120, "num_iterations": 1, **SIZES,
        },
        "synthesize": {
            "model": "base", "prompts": "files", "num_prompts": 30, "num_candidates": 4,
            "pairs": "best_worst", **ANSWERS, **synthesize,
        },
        "sft": {"model": "base", "data": "synthesize"},
        "dpo": {"model": "base", "preferences": "synthesize"},
    }  # fmt: skip
    return read_config(ConfigDict(values), STAGES)


def needs_of(config):
    topology = Topology("h200:1", MEASURED_ON, jax.devices()[:1])
    return recipe_needs(config, topology, Amounts())


def test_answers_take_the_time_of_as_many_iterations_and_hand_on_their_rows():
    needs = needs_of(run_of(max_per_prompt=2))
    found = needs["synthesize"]
    assert found.seconds.value == pytest.approx(needs["search"].seconds.value)
    assert found.work == "30 prompts x 4 answers"
    assert found.rows["sft.jsonl"] == Figure(60, Basis.ASSUMED)
    assert found.rows["dpo.jsonl"] == Figure(30, Basis.ASSUMED)
    assert "60? rows" in needs["sft"].work and "30? pairs" in needs["dpo"].work
    assert found.disk.value == found.kept.value > 30 * 4 * 1000
    unknown = needs_of(run_of(num_prompts=0))["synthesize"]
    assert unknown.work.startswith(f"{Amounts().prompts:,}? prompts")


def test_the_programs_are_those_of_a_search_without_trees():
    devices = jax.devices()[:1]
    runtime = Runtime(slots=8, tree_device="host")
    models = {"model": [tiny_config(64)]}
    context = PlanContext("stage", runtime, devices, devices, models)
    search = Search(model="base", prompts="data", **SIZES).programs(context)
    stage = Synthesize(model="base", prompts="data", **ANSWERS)
    assert [each.name for each in stage.programs(context)] == [each.name for each in search]
    stage.check_devices(context)


def test_a_stage_without_pairs_makes_none():
    assert set(Synthesize(model="base", prompts="data").makes()) == {"sft.jsonl"}
