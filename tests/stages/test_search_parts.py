"""A search by several processes, simulated one after the other, gives the trees of one."""

from types import SimpleNamespace

import pytest

from stair_jax.data.records import Prompt
from stair_jax.data.row_file import RowFile
from stair_jax.parallel.processes import collectives
from stair_jax.record_log import RecordLog
from stair_jax.search.prompt_queue import DUPLICATE
from stair_jax.search.search_report import SearchReport
from stair_jax.stages.search_parts import TREES_FILE, RecordShards
from stair_jax.storage import write_jsonl

IDS = ["a", "b", "c", "a", "d", "e", "b", "f", "a"]


@pytest.fixture
def processes(monkeypatch):
    """`act(count, function)` calls `function` as each of `count` processes, the first one last."""
    values = {}

    def gather(name, value, seconds):
        values[collectives.process_index()] = value
        return [values[index] for index in sorted(values)] if collectives.is_main() else []

    monkeypatch.setattr(collectives, "gather", gather)
    monkeypatch.setattr(collectives, "barrier", lambda name, seconds: None)

    def act(count, function):
        values.clear()
        for index in reversed(range(count)):
            state = SimpleNamespace(num_processes=count, process_id=index)
            monkeypatch.setattr(collectives, "_state", lambda state=state: state)
            result = function()
        return result

    return act


def prompts(folder, ids):
    path = folder.with_name(f"{folder.name}.jsonl")
    row = {"kind": "safety", "source": ""}
    write_jsonl(path, [row | {"id": id, "prompt": f"{place}"} for place, id in enumerate(ids)])
    return RowFile(path, Prompt, unique_ids=False)


def work(folder, ids=IDS, limit=99):
    """What a search writes and reports: a record a new id, as many as `limit`."""
    parts = RecordShards(folder, prompts(folder, ids))
    report = SearchReport()
    seen = set()
    for prompt in parts.prompts:
        if prompt.id in seen or prompt.id == "e":
            reason = DUPLICATE if prompt.id in seen else "empty prompt"
            report.skipped.append((prompt.id, reason))
        elif prompt.id not in parts.done and report.trees < limit:
            parts.log.append({"id": prompt.id, "text": prompt.prompt})
            report.trees += 1
            report.counts["rollouts"] += 2
            report.iterations += 32
            report.judgements += 2
            report.engine.generated += 3
        seen.add(prompt.id)
    return parts, report


def join(folder):
    parts, report = work(folder)
    return parts.join(report)


def records(folder):
    return RecordLog(folder / TREES_FILE).read()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_together_are_the_whole(processes, tmp_path, count):
    report = processes(count, lambda: join(tmp_path))
    expected = [{"id": id, "text": f"{IDS.index(id)}"} for id in "abcdf"]
    assert records(tmp_path) == expected
    assert (report.trees, report.counts, report.engine.generated) == (5, {"rollouts": 10}, 15)
    assert (report.iterations, report.judgements) == (160, 10)
    assert report.skipped == [
        ("a", DUPLICATE),
        ("e", "empty prompt"),
        ("b", DUPLICATE),
        ("a", DUPLICATE),
    ]
    assert [path.name for path in tmp_path.iterdir()] == [TREES_FILE]


@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 1), (1, 3), (2, 3)])
def test_a_search_goes_on_with_another_number_of_processes(processes, tmp_path, before, after):
    processes(before, lambda: work(tmp_path, limit=1))
    started = {id for path in tmp_path.iterdir() for id in ids_of(path)}
    assert 0 < len(started) < 5
    report = processes(after, lambda: join(tmp_path))
    assert report.trees == 5 - len(started)
    assert sorted(record["id"] for record in records(tmp_path)) == list("abcdf")
    assert [path.name for path in tmp_path.iterdir()] == [TREES_FILE]


def ids_of(path):
    return [record["id"] for record in RecordLog(path)]


def test_a_join_that_was_cut_short_is_done_again(processes, tmp_path):
    processes(2, lambda: work(tmp_path))
    parts = {path: path.read_bytes() for path in tmp_path.iterdir()}
    processes(2, lambda: join(tmp_path))
    whole = (tmp_path / TREES_FILE).read_bytes()
    for path, content in parts.items():
        path.write_bytes(content)
    assert processes(2, lambda: join(tmp_path)).trees == 0
    assert (tmp_path / TREES_FILE).read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [TREES_FILE]


def test_damaged_parts_are_repaired_before_they_are_read(processes, tmp_path, capsys):
    processes(2, lambda: work(tmp_path))
    (first, second) = sorted(tmp_path.iterdir())
    whole = second.read_bytes()
    second.write_bytes(whole[:-3])
    first.write_bytes(b"\x00" * 40 + first.read_bytes()[40:])
    assert len(processes(1, lambda: RecordShards(tmp_path, prompts(tmp_path, IDS)).done)) == 3
    processes(2, lambda: join(tmp_path))
    said = capsys.readouterr().err
    assert f"{second}: its last record was incomplete" in said and f"{first}: it was dam" in said
    assert sorted(record["id"] for record in records(tmp_path)) == list("abcdf")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {TREES_FILE, f"{first.name}.damaged"}
