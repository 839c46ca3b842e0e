"""The configs that the page of the stage shows are accepted."""

import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import stair_jax
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES, Synthesize
from stair_jax.synthesis.records import CUT, DUPLICATE, EMPTY, FILTERED, MALFORMED, NO_REPLY
from stair_jax.synthesis.selection import LIMIT, LOW_REWARD, UNHELPFUL, UNJUDGED, UNSAFE
from stair_jax.text.policies import POLICIES

PAGE = (Path(stair_jax.__file__).parents[1] / "docs/synthesis.md").read_text()
NAMES = (
    "files",
    "model:base",
    "sft:system1",
    "sft",
    "synthesize:refusals",
    "synthesize:reasoned",
    "sft:deliberative",
    "synthesize:rewarded",
    "dpo:rewarding1",
    "synthesize:helpful",
    "dpo:sacpo1",
    "synthesize:safe",
    "dpo:sacpo2",
    "synthesize:written",
    "synthesize:taught",
)


@pytest.fixture(scope="module")
def stages():
    """The stages of all blocks together, by name."""
    config = ConfigDict({"stages": NAMES})
    config.files = ConfigDict({"sft": "sft.jsonl", "prompts": ("prompts.jsonl",)})
    config.sft = ConfigDict({"model": "base", "data": "files"})
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, {"config": config, "ConfigDict": ConfigDict})
    return {entry.name: entry.stage for entry in read_config(config, STAGES).stages}


def test_the_baselines_of_the_page_are_runs(stages):
    made = {name for name, stage in stages.items() if isinstance(stage, Synthesize)}
    local = {"refusals", "reasoned", "rewarded", "helpful", "safe"}
    taught = {name for name in made if stages[name].is_taught}
    assert (made - taught, taught) == (local, {"written", "taught"})
    assert not any(stages[name].model for name in taught)
    assert stages["deliberative"].data == "reasoned"
    assert stages["sacpo2"].beta == pytest.approx(stages["sacpo1"].beta / 4)
    assert {stages[name].judge.used_sources for name in ("refusals", "reasoned")} == {("rule",)}


def test_the_page_names_each_reason_and_each_of_our_policies():
    for reason in (
        CUT,
        EMPTY,
        MALFORMED,
        DUPLICATE,
        FILTERED,
        NO_REPLY,
        UNJUDGED,
        UNSAFE,
        UNHELPFUL,
        LOW_REWARD,
        LIMIT,
    ):
        assert f"`{reason}`" in PAGE, reason
    for name in POLICIES:
        assert f"`{name}`" in PAGE, name


def test_the_page_names_each_field_of_the_table(stages):
    fields = set(re.findall(r"`(\w+)`", PAGE.partition("Who judges")[0]))
    known = set(Synthesize.__dataclass_fields__) | {"synthesize"}
    assert fields <= known
