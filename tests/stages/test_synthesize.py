"""The stage `synthesize` with a real, tiny, random model."""

import pytest

from stair_jax import storage
from stair_jax.data.prompts import read_rows
from stair_jax.data.records import SftRow, StepPair
from stair_jax.models import huggingface
from stair_jax.stages import Synthesize
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer

SETTINGS = {
    "model": "base",
    "prompts": "data",
    "file": "prompts.jsonl",
    "answer_format": "plain",
    "num_candidates": 4,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_prompt_tokens": 40,
    "max_answer_tokens": 24,
    "context_tokens": 64,
    "max_per_prompt": 2,
    "min_safety": -1.0,
    "min_helpfulness": -1.0,
    "pairs": "best_worst",
    "v0": 0.0,
    "judge": {
        "probe": "",  # random weights
        "mode": "expected",
        "fence": False,
        "helpfulness_template": "rate {prompt} : {answer}",
        "safety_template": "safe {prompt} : {answer}",
        "safety_score": "expected",
    },
    "samples_every": 2,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folders of a model and of prompts."""
    root = tmp_path_factory.mktemp("inputs")
    tokenizer = word_tokenizer(["1", "2", "3", "4", "5", "SAFE", "UNSAFE", "rate", "safe"])
    config, params = tiny_model(tokenizer.vocab_size, num_hidden_layers=1)
    huggingface.save(root / "base" / "hf", params, config, tokenizer)
    rows = [
        {"id": f"p{i}", "prompt": f"{i} 2 1", "kind": kind, "source": "test", "answer": "1 2 3"}
        for i, kind in enumerate(["safety", "helpfulness"] * 3)
    ]
    rows.append({"id": "long", "prompt": "1 " * 60, "kind": "safety", "source": "test"})
    storage.write_jsonl(root / "data" / "prompts.jsonl", rows)
    return {"model": root / "base", "prompts": root / "data"}


@pytest.fixture(scope="module")
def synthesize(run_stage, inputs):
    """`synthesize(folder, **settings)`: the folder of a finished stage."""

    def run(folder, slots=8, **settings):
        return run_stage(Synthesize, SETTINGS | settings, folder, inputs, slots=slots)

    return run


@pytest.fixture(scope="module")
def finished(synthesize, tmp_path_factory):
    """An undisturbed stage."""
    return synthesize(tmp_path_factory.mktemp("synthesis"))


def test_every_answer_is_kept_or_rejected_with_a_reason(finished):
    answers = storage.read_jsonl(finished / "answers.jsonl")
    assert [row["id"] for row in answers] == [*(f"p{i}" for i in range(6)), "long"]
    assert [len(row["answers"]) for row in answers] == [4] * 6 + [0]
    kept = read_rows(finished / "sft.jsonl", SftRow)
    rejected = storage.read_jsonl(finished / "rejected.jsonl")
    assert len(kept) + len(rejected) == 4 * 6 + 1
    assert {row.prompt for row in kept} <= {f"{i} 2 1" for i in range(6)}
    assert rejected[-1] == {
        "id": "long",
        "prompt": "1 " * 60,
        "kind": "safety",
        "answer": None,
        "reason": "prompt too long",
        "scores": {},
    }
    counts = storage.read_json(finished / "counts.json")
    assert counts["answers"]["kept"] == len(kept) > 2
    assert counts["skipped"] == {"prompt too long": 1}
    assert len(read_rows(finished / "dpo.jsonl", StepPair, unique_ids=True)) == counts["pairs"] > 1
