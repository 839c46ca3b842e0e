"""Runs of two processes with four devices each, started by the real command."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from soak import processes
from soak.command import Command
from soak.restarts import Moment
from stair_jax.record_log import RecordLog
from stair_jax.storage import read_jsonl, write_jsonl

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CONFIG = Path(__file__).with_name("tiny_run.py")
SEARCHED = [f"p{i}" for i in range(5)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_stage_inputs):
    folder = make_stage_inputs(tmp_path_factory.mktemp("inputs"), rows=16, initializer_range=0.1)
    prompts = [{"id": id, "prompt": f"{id} + 2?", "kind": "safety"} for id in SEARCHED]
    prompts.insert(2, {"id": "long", "prompt": "1 " * 200, "kind": "safety"})
    write_jsonl(folder / "data" / "prompts.jsonl", [row | {"source": "test"} for row in prompts])
    _write_benchmarks(folder / "benchmarks")
    return folder


def _write_benchmarks(folder):
    """Prompts of XSTest, one of them too long, and pairs of HHH."""
    folder.mkdir()
    texts = [f"{n} + 2?" for n in range(6)] + ["1 " * 200]
    rows = [f"{n},{text},contrast_homonyms,x" for n, text in enumerate(texts)]
    text = "\n".join(["id,prompt,type,focus", *rows])
    (folder / "xstest_prompts.csv").write_text(text)
    pairs = [{"id": f"{n}", "input": f"{n} + 2?"} for n in range(5)]
    choices = {"subset": "honest", "chosen": "Four, it is.", "rejected": "Five."}
    write_jsonl(folder / "hhh.jsonl", [pair | choices for pair in pairs])


def command_of(inputs, count, *flags):
    """The command in one or several processes, which share eight devices equally."""
    return Command(
        ("-m", "stair_jax.launch", f"--config={CONFIG}:{inputs}", *flags),
        compiled=inputs / "compiled",
        processes=count,
        devices=8 // count,
        optimised=False,
    )


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The folder of a run of all stages in one process."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    command_of(inputs, 1).finish(workdir)
    return workdir


@pytest.fixture(scope="module")
def shared(inputs, tmp_path_factory):
    """The folder of a run of all stages in two processes."""
    workdir = tmp_path_factory.mktemp("shared") / "run"
    command_of(inputs, 2).finish(workdir)
    return workdir


def metrics(workdir, stage):
    return [json.loads(line) for line in (workdir / stage / "metrics.jsonl").open()]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_two_processes_of_four_devices_train_like_one_of_eight(whole, shared, stage):
    one, two = metrics(whole, stage), metrics(shared, stage)
    assert len(one) == len(two) >= 4
    losses = [row["loss"] for row in one if "loss" in row]
    assert losses[0] - losses[-1] > 0.05 and "eval/loss" in one[-1]
    for expected, values in zip(one, two, strict=True):
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_two_processes_show_the_samples_of_one(whole, shared, stage):
    shown = [
        [
            (row["step"], row["prompt"])
            for row in map(json.loads, (run / stage / "samples.jsonl").open())
        ]
        for run in (whole, shared)
    ]
    assert shown[0] == shown[1] and shown[0]


def trees(workdir):
    records = RecordLog(workdir / "search" / "trees.jsonl.gz").read()
    return [record | {"seconds": None} for record in records]


def test_two_processes_grow_the_trees_of_one(whole, shared):
    one = {record["id"]: record for record in trees(whole)}
    assert [record["id"] for record in trees(shared)] == SEARCHED
    assert trees(shared) == [one[id] for id in SEARCHED]
    assert sum(record["generated_tokens"] for record in one.values()) > 100
    skipped = (whole / "search" / "skipped.json").read_text()
    assert (shared / "search" / "skipped.json").read_text() == skipped
    assert json.loads(skipped) == [{"id": "long", "reason": "prompt too long"}]
    assert not list((shared / "search").glob(".part*"))


def test_two_processes_evaluate_with_the_bytes_of_one(whole, shared):
    names = [
        "answers/base.greedy.jsonl",
        "verdicts/rule.jsonl",
        "verdicts/rule.json",
        "graded.jsonl",
        "details.json",
        "table.json",
        "table.md",
    ]
    for name in names:
        assert (shared / "evaluate" / name).read_bytes() == (whole / "evaluate" / name).read_bytes()
    answers = read_jsonl(whole / "evaluate" / names[0])
    assert len(answers) == 7 + 5 + 3 * 7  # three forms of the forged tags
    assert [answer["case"] for answer in answers[:12]] == [*map(str, range(7)), *map(str, range(5))]
    finishes = [answer.get("finish", "stop") for answer in answers[:7]]
    assert finishes[6] == "too_long" and set(finishes[:6]) <= {"stop", "length"}
    assert all(len(answer["likelihoods"]) == 2 for answer in answers[7:12])
    assert not list((shared / "evaluate").glob("*/.*"))


def test_records_do_not_depend_on_the_number_of_processes(whole, shared):
    for stage in ("data", "base", "sft", "search", "evaluate", "dpo", "export"):
        one, two = (
            json.loads((run / stage / "complete.json").read_text()) for run in (whole, shared)
        )
        assert one["fingerprint"] == two["fingerprint"] and set(one["files"]) == set(two["files"])
        if stage in ("data", "base"):
            assert one == two


def test_the_end_of_one_ends_both_and_a_restart_ends_with_the_same_bits(inputs, shared, tmp_path):
    """Process 0, which serves the others, is killed; in the next run process 1 gets SIGTERM."""
    for stage in ("data", "base", "sft"):
        shutil.copytree(shared / stage, tmp_path / "undisturbed" / stage)

    def has_checkpoint(run):
        return (run.workdir / "sft" / "checkpoints" / "2").exists()

    def goes_on(run):  # not at a checkpoint, the last may come too soon: step 1 takes seconds
        return "sft: resuming at" in run.output()

    def is_unfinished(workdir):
        return ["the stage was finished"] if (workdir / "sft" / "hf").exists() else []

    moments = [
        Moment(signal.SIGKILL, has_checkpoint, "at a checkpoint", process=0),
        Moment(signal.SIGTERM, goes_on, "as it goes on", process=1, check=is_unfinished),
    ]
    command = command_of(inputs, 2, "--config.stages=('files:data','model:base','sft')")
    result = processes.run(2, 0, tmp_path, moments, command, tmp_path / "undisturbed")
    said = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert result.failures == [], said
    assert result.counts["SIGKILL"] == result.counts["SIGTERM"] == 1
    lost = "process 0 of 2 is lost (killed, or its machine is down)"
    assert lost in said["run0.start0.1.log"]
    assert "sft: resuming at" in said["run0.start2.0.log"]
