"""What the stages of a config know of each other."""

from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES


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
    entries = {entry.name: entry for entry in read_config(values, STAGES).stages}
    given = {name: dict(entry.bases) for name, entry in entries.items() if entry.bases}
    assert given == {name: {"model": "base"} for name in ("search", "iter1", "iter2", "whole")}
    made = {name: entry.base for name, entry in entries.items() if entry.base}
    assert made == {"sft": "base", "iter1": "base", "prm": "iter2"}
