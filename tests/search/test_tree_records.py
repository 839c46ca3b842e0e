import dataclasses
import json
import os

import pytest

from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.search.tree_records import Node, TreeRecord, read_trees, write_trees

RECORD = TreeRecord(
    id="p1",
    prompt="why?",
    kind="safety",
    source="test",
    model="m",
    settings="s",
    nodes=(
        Node(-1, "", (1, 2), 0, 5, 0.5, missing=1),
        Node(0, "a", (3,), 1, 3, 0.25, prior=0.5, judgements=[{"reward": 0.25}]),
        Node(0, "b", (4, 5), 1, 1, 1.0, reward=1.0, terminal=True),
        Node(1, "c", (6,), 2, 0, None, terminal=True, missing=1),
    ),
    iterations=5,
    counts={"judged": 4},
    generated_tokens=20,
    prefilled_tokens=30,
    seconds=1.5,
)


def test_record_survives_json():
    assert TreeRecord.from_dict(json.loads(json.dumps(RECORD.to_dict()))) == RECORD


def test_a_tree_of_an_older_or_newer_schema():
    data = json.loads(json.dumps(RECORD.to_dict()))
    assert data.pop("schema") == 1
    assert TreeRecord.from_dict(data) == RECORD
    with pytest.raises(UserError, match=r"^trees, record 3: its schema 2 .* update stair_jax"):
        TreeRecord.from_dict(data | {"schema": 2, "nodes": "of another form"}, "trees, record 3")


def test_paths_and_children():
    assert RECORD.path(3) == [1, 3] and RECORD.path(0) == []
    assert RECORD.children() == [[1, 2], [3], [], []]
    assert RECORD.texts([1, 3]) == ["a", "c"] and RECORD.tokens([2, 3]) == [4, 5, 6]


@pytest.mark.parametrize("parent", [3, 7, -1])
def test_damaged_tree_is_refused(parent):
    data = json.loads(json.dumps(RECORD.to_dict()))
    data["nodes"][2]["parent"] = parent
    with pytest.raises(UserError, match="p1"):
        TreeRecord.from_dict(data)
    with pytest.raises(UserError, match="not a search tree"):
        TreeRecord.from_dict({"id": "p1"})


def test_tokens_may_be_unknown():
    nodes = (RECORD.nodes[0], *(dataclasses.replace(n, tokens=None) for n in RECORD.nodes[1:]))
    record = dataclasses.replace(RECORD, nodes=nodes)
    assert TreeRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert record.tokens([1, 3]) is None and record.tokens([]) == []


def test_a_file_of_trees_comes_back_and_is_that_of_a_search(tmp_path):
    path = tmp_path / "trees.jsonl.gz"
    trees = [dataclasses.replace(RECORD, id=f"p{i}") for i in range(3)]
    write_trees(path, trees[:1])
    write_trees(path, trees)
    assert read_trees(path) == trees
    log = RecordLog(tmp_path / "log.jsonl.gz")
    for tree in trees:
        log.append(tree.to_dict())
    assert path.read_bytes() == log.path.read_bytes()
    with pytest.raises(UserError, match="there is no file"):
        read_trees(tmp_path / "none")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match="cut off in the record behind 2 whole ones"):
        read_trees(path)
