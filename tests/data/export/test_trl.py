"""TRL's own trainers prepare what is exported for them; its version 1 has none for steps."""

import json
from pathlib import Path

import pytest

import stair_jax
from stair_jax.data.export.folder import Export, write_export

trl = pytest.importorskip("trl", reason="trl, of the extra dev, is not installed")
BASE = Path(stair_jax.__file__).parent / "pocket/base"
SYSTEM, ASKED = {"role": "system", "content": "be kind"}, {"role": "user", "content": "how?"}
ROWS = {
    "sft": {"id": "a", "prompt": "how?", "answer": "so.", "kind": "safety", "system": "be kind"},
    "dpo": {"id": "a", "prompt": "how?", "path": ["first. "], "chosen": "so.", "rejected": "no."},
    "prm": {"id": "a", "prompt": "how?", "chosen_path": ["a", "b"], "rejected_path": ["a", "c"]},
}


@pytest.fixture
def load(tmp_path):
    """A function from a format and a use to the data set that TRL is given."""
    import datasets

    def load(name, use):
        (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[use]) + "\n")
        write_export(Export(str(tmp_path / "rows.jsonl"), name, use), tmp_path / name)
        file = str(tmp_path / name / f"{use}.jsonl")
        cache = str(tmp_path / "cache")
        return datasets.load_dataset("json", data_files=file, cache_dir=cache)["train"]

    return load


@pytest.fixture
def options(tmp_path):
    return {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False}


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


def rendered(tokenizer, *messages):
    return tokenizer.apply_chat_template(list(messages), tokenize=False).rstrip("\n")


@pytest.mark.parametrize("name", ["messages", "trl-sft"])
def test_examples(load, options, tokenizer, name):
    trainer = trl.SFTTrainer(
        str(BASE),
        args=trl.SFTConfig(**options),
        train_dataset=load(name, "sft"),
        processing_class=tokenizer,
    )
    (row,) = trainer.train_dataset
    said = {"role": "assistant", "content": "so."}
    shown = tokenizer.decode(row["input_ids"]).rstrip("\n")
    assert shown == rendered(tokenizer, SYSTEM, ASKED, said)


@pytest.mark.parametrize("name", ["trl-dpo", "openrlhf"])
def test_pairs(load, options, tokenizer, name):
    trainer = trl.DPOTrainer(
        str(BASE),
        args=trl.DPOConfig(**options),
        train_dataset=load(name, "dpo"),
        processing_class=tokenizer,
    )
    (row,) = trainer.train_dataset
    prompt = row["prompt_ids"] if "prompt_ids" in row else row["prompt_input_ids"]
    for side, text in (("chosen", "first. so."), ("rejected", "first. no.")):
        ids = row[f"{side}_ids"] if f"{side}_ids" in row else row[f"{side}_input_ids"]
        shown = tokenizer.decode([*prompt, *ids]).rstrip("\n")
        assert shown.startswith(rendered(tokenizer, ASKED, {"role": "assistant", "content": text}))
