"""Comparison of the artifacts of two runs."""

import json

import pytest

from soak.compare import differences, tree_ids
from stair_jax.record_log import RecordLog


@pytest.fixture
def make_run(tmp_path):
    """A function that makes the folder of a finished run; some files depend on the clock."""

    def make(name, clock):
        folder = tmp_path / name
        for stage in ("sft", "search1", "pairs"):
            (folder / stage).mkdir(parents=True)
        log = RecordLog(folder / "search1/trees.jsonl.gz")
        for id in ("a", "b") if clock == 1 else ("b", "a"):  # in the order in which they finished
            log.append({"id": id, "value": 0.5, "seconds": clock})
        (folder / "sft/metrics.jsonl").write_text('{"loss": 1}\n')
        (folder / "sft/speed.jsonl").write_text(f"{clock}")
        (folder / "sft/.times.jsonl").write_text(f"{clock}")
        (folder / f"sft/events.out.tfevents.{clock}").write_text("")
        (folder / "search1/speed.jsonl").write_text(f"{clock}")
        (folder / "pairs/dpo.jsonl").write_text("{}\n")
        files = {"speed.jsonl": {"sha256": clock}, "metrics.jsonl": {"sha256": 7}}
        record = {"kind": "sft", "files": files}
        (folder / "sft/complete.json").write_text(json.dumps(record))
        (folder / ".lock").write_text(f"{clock}")
        return folder

    return make


def test_runs_that_differ_only_by_the_clock_are_equal(make_run):
    assert differences(make_run("one", 1), make_run("two", 2)) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sft/metrics.jsonl", "{}", "sft/metrics.jsonl differs"),
        ("pairs/dpo.jsonl", "", "pairs/dpo.jsonl differs"),
        ("pairs/more.txt", "", "pairs/more.txt is surplus"),
        (
            "sft/complete.json",
            '{"kind": "sft", "files": {"metrics.jsonl": {"sha256": 8}}}',
            "sft/complete.json differs",
        ),
    ],
)
def test_a_file_that_differs_is_named(make_run, name, content, said):
    one, two = make_run("one", 1), make_run("two", 2)
    (two / name).write_text(content)
    assert differences(one, two) == [said]


def test_a_missing_file_is_named(make_run):
    one, two = make_run("one", 1), make_run("two", 2)
    (two / "pairs/dpo.jsonl").unlink()
    assert differences(one, two) == ["pairs/dpo.jsonl is missing"]


def test_different_trees_are_named_and_ids_come_from_all_files(make_run):
    one, two = make_run("one", 1), make_run("two", 2)
    RecordLog(two / "search1/trees.jsonl.gz").append({"id": "c", "seconds": 1})
    assert differences(one, two) == ["search1/trees.jsonl.gz differs"]
    RecordLog(two / "search1/.part1.trees.jsonl.gz").append({"id": "d"})
    assert tree_ids(two) == {"a", "b", "c", "d"}
