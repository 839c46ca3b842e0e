"""An evaluation on workers in this process: its files are those of one without workers."""

import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.shards import Shards
from stair_jax.models import huggingface
from stair_jax.record_log import RecordLog
from stair_jax.settings import build
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


@pytest.fixture(scope="module")
def evaluate(inputs, run_stage):
    def evaluate(root, **runtime):
        values = {
            "checkpoints": (str(inputs / "tiny"),),
            "attacker": str(inputs / "other"),
            "attacks": {"pair": {"streams": 1, "iterations": 1, "max_tokens": 8}},
            "files": str(inputs),
            "benchmarks": (*NAMES, f"{inputs}/choices.jsonl@likelihood"),
            "graders": ("rule", str(inputs / "other")),
            "grading": {"mode": "expected"},
            "labelled": {"refusal": str(inputs / "labels.jsonl")},
            "max_tokens": 4,
            "context_tokens": 1024,
        }
        return run_stage(Evaluate, values, root / "evaluate", {}, slots=2, **runtime)

    return evaluate


@pytest.fixture(scope="module")
def alone(evaluate, tmp_path_factory):
    """The folder of an evaluation without workers."""
    return evaluate(tmp_path_factory.mktemp("alone"))


def contents(folder):
    """All files but those that time decides: speed, and hashes of sources that are old enough."""
    timed = ("speed.jsonl", ".sources.json")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in timed)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_files_of_an_evaluation_on_workers_are_those_of_one_without(
    alone, evaluate, pools, tmp_path
):
    dealt = evaluate(tmp_path, cluster="local:2")
    assert [pool.lost for pool in pools] == [[FIRST]] * 3  # log-likelihoods, answers, verdicts
    assert contents(dealt) == contents(alone)
    speeds = [storage.read_jsonl(folder / "speed.jsonl") for folder in (alone, dealt)]
    counts = [[(row["kind"], row["cases"], row["answers"]) for row in rows] for rows in speeds]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("again", ["", "local:2"])
def test_a_driver_that_was_killed_goes_on_with_workers_and_without(
    alone, evaluate, pools, tmp_path, monkeypatch, again
):
    extend, told = Shards.extend, []

    def stop(shards, found):
        if len(told) == 5:
            raise KeyboardInterrupt
        told.append(extend(shards, found))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shards, "extend", stop)
        evaluate(tmp_path, cluster="local:2")
    (log,) = tmp_path.glob("evaluate/answers/.*.part0.jsonl.gz")
    done = len(RecordLog(log).read())
    assert 5 <= done < 18
    assert contents(evaluate(tmp_path, cluster=again)) == contents(alone)
    rows = storage.read_jsonl(tmp_path / "evaluate/speed.jsonl")
    assert sum(row["cases"] for row in rows if row["kind"] == "answers") == 18 - done


def test_a_judge_behind_an_endpoint_guides_no_search_on_workers(inputs):
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "judge"}
    values = {
        "files": str(inputs),
        "benchmarks": NAMES[:1],
        "searched_checkpoint": str(inputs / "tiny"),
        "judge": {"source": "endpoint", "mode": "generative", "endpoint": endpoint},
    }
    build(Evaluate, values, "evaluate").check_cluster()
    searches = values | {"methods": ("best_of_n_self_reward:2",)}
    with pytest.raises(UserError, match="leave --cluster out"):
        build(Evaluate, searches, "evaluate").check_cluster()
