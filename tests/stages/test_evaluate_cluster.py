"""An evaluation on workers in this process: its files are those of one without workers."""

import pytest

from stair_jax import storage
from stair_jax.models import huggingface
from stair_jax.stages import Evaluate
from stair_jax.testing.local_pool import FIRST
from stair_jax.testing.tiny_models import tiny_model

NAMES = ("xstest_unsafe", "xstest_unsafe:rot13", "xstest_unsafe:pair")


@pytest.fixture(scope="module")
def inputs(chat_tokenizer, tmp_path_factory):
    """Folders of two models, of prompts, of choices, and of labels."""
    root = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(("tiny", "other")):
        config, params = tiny_model(
            chat_tokenizer.vocab_size, seed, num_hidden_layers=1, max_position_embeddings=2048
        )
        huggingface.save(root / name, params, config, chat_tokenizer)
    rows = [f"{n},Prompt {n}{'!' * n}.,contrast_homonyms,x" for n in range(5)]
    (root / "xstest_prompts.csv").write_text("\n".join(["id,prompt,type,focus", *rows]))
    choices = [
        {"id": f"{n}", "prompt": f"{n}?", "choices": ["yes", "no"], "reference": "yes"}
        for n in range(3)
    ]
    storage.write_jsonl(root / "choices.jsonl", choices)
    labels = [
        {"id": f"{n}", "prompt": "x", "answer": f"answer {n}", "label": label}
        for n, label in enumerate(["full_refusal", "full_compliance"] * 2)
    ]
    storage.write_jsonl(root / "labels.jsonl", labels)
    return root


@pytest.fixture
def evaluate(inputs, tmp_path, run_stage):
    def evaluate(**runtime):
        values = {
            "checkpoints": (str(inputs / "tiny"),),
            "attacker": str(inputs / "other"),
            "attacks": {"pair": {"streams": 1, "iterations": 1}},
            "files": str(inputs),
            "benchmarks": (*NAMES, f"{inputs}/choices.jsonl@likelihood"),
            "graders": ("rule", str(inputs / "other")),
            "grading": {"mode": "expected"},
            "labelled": {"refusal": str(inputs / "labels.jsonl")},
            "max_tokens": 4,
            "context_tokens": 1024,
        }
        return run_stage(Evaluate, values, tmp_path / "evaluate", {}, slots=2, **runtime)

    return evaluate


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "speed.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_files_of_an_evaluation_on_workers_are_those_of_one_without(evaluate, pools, tmp_path):
    alone = evaluate().rename(tmp_path / "alone")
    assert not pools
    dealt = evaluate(cluster="local:2")
    assert [pool.lost for pool in pools] == [[FIRST]] * 3  # log-likelihoods, answers, verdicts
    assert contents(dealt) == contents(alone)
    speeds = [storage.read_jsonl(folder / "speed.jsonl") for folder in (alone, dealt)]
    counts = [[(row["kind"], row["cases"], row["answers"]) for row in rows] for rows in speeds]
    assert counts[0] == counts[1]
