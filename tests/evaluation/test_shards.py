"""Records made side by side: joined in their order, kept through kills, and never made twice."""

import json
from contextlib import contextmanager

import pytest

from stair_jax.evaluation.runner import key_of
from stair_jax.evaluation.shards import Shards
from stair_jax.parallel.processes import collectives
from stair_jax.record_log import RecordLog

KEYS = [key_of("set", number) for number in range(7)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


@pytest.fixture
def as_process(monkeypatch):
    """Runs a block as one of several processes, whose barriers return at once."""

    @contextmanager
    def process(index, of):
        with monkeypatch.context() as patch:
            patch.setattr(collectives, "process_index", lambda: index)
            patch.setattr(collectives, "num_processes", lambda: of)
            patch.setattr(collectives, "is_main", lambda: index == 0)
            patch.setattr(collectives, "barrier", lambda *arguments: None)
            yield

    return process


def rows_of(key):
    """Two rows of the third key, none of the fourth, one of others."""
    count = {KEYS[2]: 2, KEYS[3]: 0}.get(key, 1)
    return [{"id": key, "sample": sample, "text": f"é {key}"} for sample in range(count)]


def make(shards, keys):
    shards.extend((key, rows_of(key)) for key in keys)


def whole(keys=KEYS):
    lines = (json.dumps(row, ensure_ascii=False) for key in keys for row in rows_of(key))
    return "".join(f"{line}\n" for line in lines).encode()


def log_of(path, process):
    return RecordLog(path.with_name(f".answers.part{process}.jsonl.gz"))


def test_the_file_has_the_rows_in_the_order_of_the_keys(path):
    shards = Shards(path, KEYS)
    assert not shards.is_finished() and shards.left() == KEYS
    make(shards, reversed(KEYS[:4]))
    make(shards, KEYS[4:])
    shards.finish()
    assert shards.is_finished() and path.read_bytes() == whole()
    assert shards.read() == [row for key in KEYS for row in rows_of(key)]
    assert [file.name for file in path.parent.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("sizes", [[1], [2], [3], [2, 1], [1, 3], [3, 2, 1], [7, 8]], ids=str)
def test_the_bytes_do_not_depend_on_how_the_work_was_cut_up(sizes, path, as_process):
    """Several starts, each of another number of processes; all but the last make a part."""
    made = []
    for start, count in enumerate(sizes):
        is_last = start == len(sizes) - 1
        # All look before anyone writes, as the barriers have it.
        several = []
        for index in range(count):
            with as_process(index, count):
                several.append(Shards(path, KEYS))
                several[-1].left()
        for index, shards in enumerate(several):
            with as_process(index, count):
                left = shards.left() if is_last else shards.left()[:1]
                make(shards, left)
                made += left
    for index in reversed(range(sizes[-1])):
        with as_process(index, sizes[-1]):
            several[index].finish()
    assert path.read_bytes() == whole()
    assert sorted(made) == sorted(KEYS)  # each once
    assert [file.name for file in path.parent.iterdir()] == ["answers.jsonl"]


def test_each_process_makes_its_share_of_what_is_left(path, as_process):
    make(Shards(path, KEYS), [KEYS[1]])
    shares = []
    for index in range(3):
        with as_process(index, 3):
            shares.append(Shards(path, KEYS).left())
    left = [key for key in KEYS if key != KEYS[1]]
    assert shares == [left[0::3], left[1::3], left[2::3]]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_record_that_a_killed_writer_left_torn_is_made_again(path, cut):
    make(Shards(path, KEYS), KEYS[:3])
    log = log_of(path, 0)
    log.path.write_bytes(log.path.read_bytes()[:-cut])
    shards = Shards(path, KEYS)
    assert shards.left() == KEYS[2:] == shards.open
    make(shards, shards.left())
    shards.finish()
    assert path.read_bytes() == whole()


def test_a_damaged_record_among_others_is_made_again_and_said(path, capsys):
    shards = Shards(path, KEYS)
    for key in KEYS[:4]:
        make(shards, [key])
    log = log_of(path, 0)
    places = [end for _, end in log.members()]
    data = bytearray(log.path.read_bytes())
    middle = (places[0] + places[1]) // 2
    data[middle : middle + 4] = bytes(4)
    log.path.write_bytes(data)
    again = Shards(path, KEYS)
    assert again.left() == [KEYS[1], *KEYS[4:]]
    said = capsys.readouterr().err
    assert "3 whole ones were kept" in said and "is made again" in said
    make(again, again.left())
    again.finish()
    assert path.read_bytes() == whole()


def test_logs_that_a_killed_process_did_not_remove_are_removed_later(path, as_process):
    shards = Shards(path, KEYS)
    make(shards, KEYS)
    left_behind = log_of(path, 0).path.read_bytes()
    shards.finish()
    for process in (0, 3):
        log_of(path, process).path.write_bytes(left_behind)
    with as_process(1, 2):
        assert Shards(path, KEYS).is_finished()
    assert log_of(path, 0).path.exists()  # the first process alone removes files
    assert Shards(path, KEYS).is_finished()
    assert [file.name for file in path.parent.iterdir()] == ["answers.jsonl"]


def test_keys_may_hold_any_characters(path):
    odd = ["", " ", "a\nb", '"', "\\", "\u2028", "日本", "🙂", "a/b", "*", "\x00"]
    keys = [key_of("set", id) for id in odd] + [key_of("set", "a", "b"), key_of("set", '","')]
    assert len(set(keys)) == len(keys)
    make(Shards(path, keys), keys[::2])
    shards = Shards(path, keys)
    assert shards.left() == keys[1::2]
    make(shards, shards.left())
    shards.finish()
    assert path.read_bytes() == whole(keys)
    assert [row["id"] for row in Shards(path, keys).read()] == keys


def test_a_file_without_keys_is_empty(path):
    shards = Shards(path, [])
    shards.finish()
    assert path.read_bytes() == b"" and shards.is_finished()
