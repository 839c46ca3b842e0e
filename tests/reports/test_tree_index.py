"""The list of trees that is kept beside a large file: it spares a reading, and is never wrong."""

import gzip
import json

import pytest

from stair_jax.reports.html import tree_index as index
from stair_jax.reports.records import read_run
from stair_jax.search.tree_records import write_trees


@pytest.fixture
def search(run, monkeypatch):
    """The finished search of a run, whose file counts as a large one."""
    monkeypatch.setattr(index, "_LARGE", 1)
    return next(read_run(run.workdir).of_kind("search"))


def never(path):
    raise AssertionError(f"{path} is read again")


def test_a_large_file_is_read_once(search, monkeypatch):
    first = index.tree_index(search)
    with monkeypatch.context() as patch:
        patch.setattr(index, "_read", never)
        again = index.tree_index(search)
    assert (again.columns, again.totals, again.places) == (
        first.columns,
        first.totals,
        first.places,
    )
    assert again.columns["id"] == ["t1", "t2"] and again.place(1)[0] == again.place(0)[1]


def test_nothing_is_kept_of_a_small_file(search, monkeypatch):
    monkeypatch.setattr(index, "_LARGE", 1 << 20)
    index.tree_index(search)
    assert not (search.folder / index.INDEX_FILE).exists()


def test_other_trees_are_read_anew(search, run, records):
    index.tree_index(search)
    write_trees(search.folder / "trees.jsonl.gz", [records.tree("t5")])
    records.finish(search.folder, "search")
    changed = next(read_run(run.workdir).of_kind("search"))
    assert index.tree_index(changed).columns["id"] == ["t5"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: b"no gzip",
        lambda row: gzip.compress(b"no JSON"),
        lambda row: gzip.compress(json.dumps([row]).encode()),
        lambda row: gzip.compress(json.dumps(row).encode())[:-12],
        lambda row: gzip.compress(json.dumps(row | {"columns": {}}).encode()),
        lambda row: gzip.compress(json.dumps(row | {"places": [0, 1]}).encode()),
        lambda row: gzip.compress(json.dumps(row | {"places": ["0"] * 4}).encode()),
    ],
)
def test_what_is_damaged_is_not_used(search, damage):
    first = index.tree_index(search)
    path = search.folder / index.INDEX_FILE
    row = json.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(damage(row))
    assert index.tree_index(search).places == first.places


def test_a_folder_that_cannot_be_written_is_no_mistake(search):
    (search.folder / index.INDEX_FILE).mkdir()
    assert len(index.tree_index(search)) == 2
