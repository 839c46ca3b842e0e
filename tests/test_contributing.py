"""The stage that CONTRIBUTING.md shows can be registered, checked and run."""

import re
from pathlib import Path

import pytest

import stair_jax
from stair_jax.errors import UserError
from stair_jax.run.context import StageContext
from stair_jax.run.run_config import read_config
from stair_jax.run.runtime import Runtime
from stair_jax.stages import STAGES
from stair_jax.storage import read_jsonl, write_jsonl

ROOT = Path(stair_jax.__file__).parents[1]


@pytest.fixture(scope="module")
def margin():
    """The class of the example."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    code = re.search(r"```python\n(.*?class Margin.*?)```", page, re.DOTALL)[1]
    names = {"__name__": "example"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    return names["Margin"]


def test_the_example_is_a_stage_of_a_run(margin):
    config = {
        "stages": ("pocket", "model", "search", "preferences", "margin:wide", "dpo"),
        "search": {"model": "model", "prompts": "pocket"},
        "preferences": {"trees": "search"},
        "margin": {"margin": 0.5},
        "wide": {"preferences": "preferences"},
        "dpo": {"model": "model", "preferences": "wide"},
    }
    entries = read_config(config, {**STAGES, "margin": margin}).stages
    assert entries[4].stage == margin(preferences="preferences", margin=0.5)
    with pytest.raises(UserError, match=r"config\.margin\.margin is -1: it must be at least 0"):
        read_config({**config, "margin": {"margin": -1}}, {**STAGES, "margin": margin})


def test_the_example_does_what_it_says(margin, tmp_path):
    pairs = [
        {"id": str(gap), "chosen_value": gap, "rejected_value": 0.25} for gap in (0.5, 1.25, 2.0)
    ]
    write_jsonl(tmp_path / "pairs/dpo.jsonl", pairs)
    inputs = {"preferences": tmp_path / "pairs"}
    stage = margin(preferences="pairs")
    stage.run(StageContext("wide", Runtime(), 0, tmp_path / "wide", inputs))
    assert read_jsonl(tmp_path / "wide/dpo.jsonl") == pairs[1:]
    assert stage.summary(tmp_path / "wide") == "2 of 3 pairs kept"
