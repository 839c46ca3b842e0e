"""What the stages of a config know of those before them, where nothing is run."""

from stair_jax.models.config import ModelConfig
from stair_jax.run.checks import Earlier
from stair_jax.run.run_config import read_config
from stair_jax.run.runtime import Runtime
from stair_jax.stages import STAGES

MODEL = ModelConfig(8, 8, 8, 1, 1, 1, 8)


def test_each_stage_knows_the_base_of_the_adapters_that_it_is_given():
    lora = {"lora": {"rank": 2}}
    values = {
        "stages": ("model:base", "files", "sft", "search", "preferences:pairs", "dpo:iter1",
                   "dpo:iter2", "prm", "dpo:whole"),
        "model": {"init": "pocket"},
        "sft": lora | {"model": "base", "data": "files"},
        "search": {"model": "sft", "prompts": "files", "judge": {"source": "model"},
                   "judge_model": "base", "file": "prompts1.jsonl"},
        "files": {"sft": "a", "prompts": ("b",)},
        "pairs": {"trees": "search"},
        "dpo": lora | {"preferences": "pairs"},
        "iter1": {"model": "sft"},
        "iter2": {"model": "iter1", "lora": {"rank": 2, "save": "merged"}},
        "prm": lora | {"model": "iter2", "preferences": "pairs"},
        "whole": {"model": "iter1", "lora": {"rank": 0}},
    }  # fmt: skip
    earlier, given = Earlier(), {}
    for entry in read_config(values, STAGES).stages:
        if bases := earlier.context(entry, Runtime()).bases:
            given[entry.name] = bases
        earlier.add(entry, MODEL)
    assert given == {name: {"model": "base"} for name in ("search", "iter1", "iter2", "whole")}
    assert earlier.bases == {"sft": "base", "iter1": "base", "prm": "iter2"}
