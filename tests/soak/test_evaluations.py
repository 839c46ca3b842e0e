"""A small run of the soak test of evaluations, and the faults that it finds."""

import json
import shutil

import pytest

from soak import evaluations
from stair_jax import storage
from stair_jax.evaluation.runner import key_of
from stair_jax.record_log import RecordLog

KEYS = [key_of("xstest_unsafe", "none", number) for number in range(4)]


@pytest.mark.slow
@pytest.mark.distributed
def test_an_evaluation_that_is_killed_ends_like_an_undisturbed_one_and_asks_nothing_twice(tmp_path):
    result = evaluations.run(2, 0, tmp_path, prompts=16)
    assert result.failures == []
    assert result.counts["kills"] == 2
    rows = storage.read_jsonl(tmp_path / "undisturbed/evaluate/answers/tiny.greedy.jsonl")
    assert {row["attack"] for row in rows} == set(evaluations.ATTACKS)
    assert len({(row["attack"], row["case"]) for row in rows}) == 3 * 16
    assert len({row["text"] for row in rows}) > 1


@pytest.fixture
def run(tmp_path):
    """A run that was killed when two of four answers were on the disk; all is right."""
    folder = tmp_path / "undisturbed/evaluate"
    rows = [
        dict(zip(("benchmark", "attack", "case"), json.loads(key), strict=True)) for key in KEYS
    ]
    storage.write_jsonl(folder / "answers/tiny.greedy.jsonl", rows)
    storage.write_json(folder / "table.json", {})
    attacked = evaluations.Attacked(tmp_path, tmp_path / "run0")
    shutil.copytree(folder, attacked.workdir / "evaluate")
    attacked.kept.append((6, set(KEYS[:2])))
    write_events(attacked, [*asked(KEYS), ("answered", KEYS[0]), ("answered", KEYS[1])])
    write_events(attacked, [*asked(KEYS[2:]), *(("answered", key) for key in KEYS[2:])])
    return attacked


def asked(keys):
    return [("asked", key) for key in keys]


def write_events(attacked, events):
    with open(attacked.workdir.with_name("run0.events"), "a") as file:
        file.writelines(f"{json.dumps(event)}\n" for event in events)


def problems(attacked):
    return attacked.problems(attacked.workdir.with_name("undisturbed"))


def test_a_run_as_it_should_be_has_no_problem(run):
    assert problems(run) == [] and run.answered_twice == 0


def test_what_is_on_the_disk_are_the_records_of_logs_and_of_finished_files(run):
    assert run.on_disk() == set(KEYS)
    stage = run.workdir / "evaluate"
    (stage / "answers/tiny.greedy.jsonl").unlink()
    log = RecordLog(stage / "answers/.tiny.greedy.part0.jsonl.gz")
    log.extend({"id": key, "rows": []} for key in KEYS[:3])
    log.path.write_bytes(log.path.read_bytes()[:-3])
    storage.write_jsonl(stage / "verdicts/rule.jsonl", [{"id": "a verdict"}])
    assert run.on_disk() == {*KEYS[:2], "a verdict"}


@pytest.mark.parametrize("what", ["asked", "answered", "judged"])
def test_what_is_done_again_though_it_was_on_the_disk_is_a_failure(run, what):
    write_events(run, [(what, KEYS[1])])
    assert problems(run) == [f"what was on the disk was {what} again"]


def test_more_repeated_answers_than_were_in_flight_are_a_failure(run):
    write_events(run, [("answered", KEYS[2])] * 4)
    assert problems(run) == []
    write_events(run, [("answered", KEYS[3])])
    assert problems(run) == ["more was answered twice than was in flight"]


def test_a_table_or_a_log_that_is_left_over_is_a_failure(run):
    stage = run.workdir / "evaluate"
    storage.write_json(stage / "table.json", {"other": 1})
    RecordLog(stage / "answers/.tiny.greedy.part0.jsonl.gz").append({"id": "x"})
    assert problems(run) == [
        "differs from the undisturbed: evaluate/answers/.tiny.greedy.part0.jsonl.gz is surplus",
        "differs from the undisturbed: evaluate/table.json differs",
    ]
