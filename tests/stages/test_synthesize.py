"""The stage `synthesize` with a tiny random model: finished, killed, and in several parts."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

import stair_jax
from stair_jax import storage
from stair_jax.data.examples import answer_example
from stair_jax.data.pairs import encode_pairs, read_pairs, step_examples
from stair_jax.data.prompts import read_rows
from stair_jax.data.records import SftRow, StepPair
from stair_jax.errors import UserError
from stair_jax.evaluation.shards import Shards
from stair_jax.models import huggingface
from stair_jax.parallel.processes import collectives
from stair_jax.record_log import RecordLog
from stair_jax.settings import build
from stair_jax.stages import Synthesize
from stair_jax.testing.local_pool import FIRST
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer

WORDS = ["1", "2", "3", "4", "5", "SAFE", "UNSAFE", "rate", "safe"]
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
    tokenizer = word_tokenizer(WORDS)
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

    def run(folder, slots=8, cluster="", **settings):
        runtime = {"slots": slots, "cluster": cluster}
        return run_stage(Synthesize, SETTINGS | settings, folder, inputs, **runtime)

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


FILES = ("answers.jsonl", "sft.jsonl", "rejected.jsonl", "dpo.jsonl", "counts.json")
BYTES = (*FILES, "metrics.jsonl", "samples.jsonl")
LOG = ".answers.part0.jsonl.gz"


def contents(folder, names=BYTES):
    return {name: (folder / name).read_bytes() for name in names}


def test_metrics_have_a_line_a_prompt_and_samples_are_of_every_second_one(finished):
    metrics = storage.read_jsonl(finished / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 8))
    kept = len(storage.read_jsonl(finished / "sft.jsonl"))
    assert sum(row["kept"] for row in metrics) == kept
    assert metrics[-1]["answers"] == 0 and metrics[-1]["reward"] is None
    tokens = storage.read_json(finished / "counts.json")["generated_tokens"]
    assert sum(row["generated_tokens"] for row in metrics) == tokens > 0
    samples = storage.read_jsonl(finished / "samples.jsonl")
    assert [(row["step"], row["id"]) for row in samples] == [(1, "p0"), (3, "p2"), (5, "p4")]
    speed = storage.read_jsonl(finished / "speed.jsonl")
    assert len(speed) == 7 and not set(metrics[0]) & set(speed[0]) - {"step"}


def test_other_slots_and_another_order_of_finishing_give_the_same_files(
    finished, synthesize, tmp_path
):
    assert contents(synthesize(tmp_path / "synthesis", slots=3)) == contents(finished)


def test_workers_of_which_one_dies_write_the_same_files(finished, synthesize, tmp_path, pools):
    dealt = synthesize(tmp_path / finished.name, slots=2, cluster="local:2")
    assert [pool.lost for pool in pools] == [[FIRST]]
    assert contents(dealt) == contents(finished)


def test_a_teacher_behind_an_endpoint_is_asked_by_the_driver_alone():
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "x"}
    judge = {"source": "endpoint", "mode": "generative", "endpoint": endpoint, "probe": ""}
    asked = {"prompts": "data", "judge": judge}
    build(Synthesize, asked | {"teacher_endpoint": endpoint}, "config").check_cluster()
    asked |= {"model": "base"}
    with pytest.raises(UserError, match=r"an endpoint judges.* leave --cluster out"):
        build(Synthesize, asked, "config").check_cluster()
    asked |= {"teacher_endpoint": endpoint, "judge": {"source": "policy", "probe": ""}}
    with pytest.raises(UserError, match="a model would judge there too: leave --cluster out"):
        build(Synthesize, asked, "config").check_cluster()


def test_an_interrupted_stage_goes_on_to_the_same_files(
    finished, synthesize, tmp_path, monkeypatch, capsys
):
    extend, folder = Shards.extend, tmp_path / finished.name
    calls = []

    def stop(shards, found):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(extend(shards, found))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shards, "extend", stop)
        synthesize(folder, slots=4)
    done = len(RecordLog(folder / LOG).read())
    assert 0 < done < 7
    with open(folder / LOG, "ab") as file:
        file.write(b"\x1f\x8b\x08 torn")
    synthesize(folder)
    said = capsys.readouterr().err
    assert "what is not in it is made again" in said
    assert f"resuming at {done} of 7 prompts" in said
    assert contents(folder) == contents(finished)
    assert not (folder / LOG).exists()
    # Killed when all answers were there: nothing is asked again.
    for name in FILES[1:]:
        (folder / name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Synthesize, "_answer", None)
        synthesize(folder)
    assert contents(folder) == contents(finished)


SCRIPT = """
import sys, time, json
from pathlib import Path
from stair_jax.evaluation.shards import Shards
from stair_jax.run.context import StageContext
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Synthesize

folder, inputs, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
extend = Shards.extend

def hang(shards, found):
    extend(shards, found)
    time.sleep(600)

Shards.extend = hang
runtime = build(Runtime, {"training_mesh": {}, "decoding_mesh": {}, "slots": 4}, "runtime")
folders = {"model": inputs / "base", "prompts": inputs / "data"}
folder.mkdir()
stage = build(Synthesize, settings, "config")
stage.run(StageContext(folder.name, runtime, 0, folder, folders))
"""


def test_after_kill_9_the_stage_goes_on_and_ends_the_same(finished, synthesize, inputs, tmp_path):
    folder = tmp_path / finished.name
    root = str(Path(stair_jax.__file__).parents[1])
    arguments = [str(folder), str(inputs["model"].parent), storage.json_line(SETTINGS).decode()]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], env=os.environ | {"PYTHONPATH": root}
    )
    try:
        while not (folder / LOG).exists() or not RecordLog(folder / LOG).read():
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < len(RecordLog(folder / LOG).read()) < 7
    synthesize(folder)
    assert contents(folder) == contents(finished)


def test_two_processes_answer_a_part_each(finished, synthesize, tmp_path, monkeypatch):
    folder = tmp_path / finished.name

    @contextmanager
    def as_process(index):
        with monkeypatch.context() as patch:
            patch.setattr(collectives, "process_index", lambda: index)
            patch.setattr(collectives, "num_processes", lambda: 2)
            patch.setattr(collectives, "is_main", lambda: index == 0)
            patch.setattr(collectives, "barrier", lambda *arguments: None)
            patch.setattr(collectives, "broadcast", lambda value: value)
            patch.setattr(Shards, "done", set())  # as both see it when they start side by side
            yield

    with as_process(1):
        synthesize(folder)
        assert [path.name for path in folder.iterdir()] == [".answers.part1.jsonl.gz"]
        assert len(RecordLog(folder / ".answers.part1.jsonl.gz").read()) == 3
    with as_process(0):
        synthesize(folder)
    assert contents(folder, FILES) == contents(finished, FILES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context_tokens": 63}, r"are 64 together, and context_tokens is 63: raise it, or lower"),
        ({"num_candidates": 1}, "pairs 'best_worst' need num_candidates of 2 or more"),
        (
            {
                "template": "{policy} {prompt}",
                "policies": {"safety": "Be safe."},
                "categories": "kind",
            },
            "there is no policy for 'helpfulness'",
        ),
        ({"judge": {"helpfulness_prompts": ()}}, "scores no answers to helpfulness prompts"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(settings, message):
    with pytest.raises(UserError, match=message):
        build(Synthesize, SETTINGS | settings, "config.synthesize")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"file": "bare.jsonl", "pairs": "given_own"},
            r"bare\.jsonl has no column 'answer', which",
        ),
        ({"file": "bare.jsonl", "kinds": ("helpfulness",)}, "has no prompt of the kind helpf"),
        (
            {"template": "{policy} {prompt}", "policies": {"cyber": "Be safe."}},
            "the prompt 'p0' has no column 'category'",
        ),
        (
            {"min_safety": 1.0, "pairs": "", "kinds": ("safety",)},
            r"no answer was kept \(.*unsafe \d+.*\): see rejected",
        ),
        ({"v0": 7.0}, r"no prompt gave a pair \(small_gap [3-6].*\): raise temperature or num_c"),
    ],
)
def test_what_gives_nothing_is_said_in_one_line(synthesize, inputs, tmp_path, settings, message):
    row = {"id": "b", "prompt": "1 2", "kind": "safety", "source": "test"}
    storage.write_jsonl(inputs["prompts"] / "bare.jsonl", [row])
    with pytest.raises(UserError, match=message) as error:
        synthesize(tmp_path / "synthesis", **settings)
    assert "\n" not in str(error.value)


def test_given_answers_are_preferred_to_the_models_own(synthesize, tmp_path):
    folder = synthesize(tmp_path / "synthesis", pairs="given_own", v0=0.0, kinds=("helpfulness",))
    pairs = storage.read_jsonl(folder / "dpo.jsonl")
    assert pairs and {row["chosen"] for row in pairs} == {"1 2 3"}
    assert {row["kind"] for row in pairs} == {"helpfulness"}
    assert all(row["chosen_value"] > row["rejected_value"] for row in pairs)
    answers = [
        each for row in storage.read_jsonl(folder / "answers.jsonl") for each in row["answers"]
    ]
    assert {each["tokens"] for each in answers} == {None}  # nobody needs them


def test_what_was_kept_can_be_answered_again(finished, synthesize, inputs, run_stage, tmp_path):
    """SFT examples are prompts too."""
    folders = inputs | {"prompts": finished}
    values = SETTINGS | {"file": "sft.jsonl", "pairs": "given_own", "v0": None}
    folder = run_stage(Synthesize, values, tmp_path / "again", folders, slots=8)
    kept = {row["id"]: row for row in storage.read_jsonl(finished / "sft.jsonl")}
    pairs = storage.read_jsonl(folder / "dpo.jsonl")
    assert pairs and all(
        row["chosen"] == kept[row["id"].rpartition(":")[0]]["answer"] for row in pairs
    )


def test_what_is_made_can_be_trained_on(finished):
    """As the stages that train read and encode it: nothing is left out."""
    tokenizer = word_tokenizer(WORDS)
    rows = read_rows(finished / "sft.jsonl", SftRow)
    examples = [answer_example(tokenizer, row) for row in rows]
    assert all(sum(example.loss_mask) > 1 for example in examples)
    pairs, counts = read_pairs(finished / "dpo.jsonl", StepPair), Counter()
    kept, encoded = encode_pairs(pairs, step_examples, tokenizer, 64, counts)
    assert kept == pairs and not counts
    for pair, sides in zip(pairs, encoded, strict=True):
        for side, tokens in zip(sides, (pair.chosen_tokens, pair.rejected_tokens), strict=True):
            assert tuple(side.tokens[-len(tokens) :]) == tuple(tokens)


def test_files_of_policies_are_sources_and_thresholds_a_part_of_the_identity(tmp_path):
    (path := tmp_path / "cyber.md").write_text("Cyber: no.")
    policies = {"cyber": str(path), "general": "general"}
    values = SETTINGS | {"template": "deliberative", "policies": policies}
    stage = build(Synthesize, values, "config")
    assert stage.sources() == {"policies.cyber": [path]}
    assert {"min_safety", "policies", "template", "v0"} <= set(stage.identity())
    assert {"samples_every", "judge.probe"}.isdisjoint(stage.identity())
    path.unlink()
    with pytest.raises(UserError, match="there is no file"):
        stage.check_environment(tmp_path)
