"""A file whose rows are read when they are asked for has the rows that are read all at once."""

import json
import random

import numpy as np
import pytest

from stair_jax.data import id_index, row_file
from stair_jax.data.prompts import read_prompts
from stair_jax.data.records import Prompt
from stair_jax.data.row_file import RowFile
from stair_jax.errors import UserError
from stair_jax.storage import iterate_jsonl, read_jsonl

ROW = {"id": "a", "prompt": "hi", "kind": "safety", "source": "made"}
TEXTS = ("hi", "größer, \U0001f600", "a\r\nb", "", '"', "\u2028", "x" * 70_000)


def draw(rng, path, ids):
    """Writes rows with any line ends, blank lines, and any end of the file; the rows."""
    rows = [ROW | {"id": rng.choice(ids), "prompt": rng.choice(TEXTS)} for _ in range(40)]
    text = ""
    for row in rows:
        text += rng.choice(["", "", " \t", "\n", "\r\n", "\r"])
        text += json.dumps(row, ensure_ascii=rng.random() < 0.5)
        text += rng.choice(["\n", "\r\n", "\r", " \n"])
    path.write_bytes(text.rstrip().encode() if rng.random() < 0.5 else text.encode())
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_rows_by_their_place_are_the_rows_of_the_file(tmp_path, seed):
    rng, path = random.Random(seed), tmp_path / "p.jsonl"
    rows = draw(rng, path, [f"p{n}" for n in range(30)])
    expected = [Prompt(**row) for row in rows]
    visited = []
    found = RowFile(path, Prompt, unique_ids=False, visit=lambda *each: visited.append(each))
    assert visited == list(enumerate(expected))
    assert list(found) == expected == read_prompts(path, unique_ids=False)
    assert [found[place] for place in range(-40, 40)] == expected * 2
    assert list(found[3:30:4]) == expected[3:30:4]
    assert list(found.select([7, 2, 7])) == [expected[place] for place in (7, 2, 7)]
    assert read_jsonl(path) == rows
    data = path.read_bytes()
    assert [json.loads(data[line.start : line.end]) for line in iterate_jsonl(path)] == rows


@pytest.mark.parametrize("bits", [0, 1, 3, 64])
def test_ids_are_found_and_told_apart_whatever_their_hashes_are(tmp_path, monkeypatch, bits):
    real = id_index.hash_id
    monkeypatch.setattr(row_file, "hash_id", lambda id: real(id) % 2**bits)
    monkeypatch.setattr(id_index, "hash_id", lambda id: real(id) % 2**bits)
    rng, path = random.Random(bits), tmp_path / "p.jsonl"
    ids = [row["id"] for row in draw(rng, path, [f"p{n}" for n in range(25)])]
    found = RowFile(path, Prompt, unique_ids=False)
    for id in (*ids, "absent"):
        assert found.ids.places(id) == [n for n, other in enumerate(ids) if other == id]
    assert found.ids.firsts.tolist() == [ids.index(id) for id in ids]
    odd = found.map(lambda row: row)[1::2]
    assert odd.ids.firsts.tolist() == [ids[1::2].index(id) for id in ids[1::2]]
    repeated = next(n for n, id in enumerate(ids) if id in ids[:n])
    message = f"line {repeated + 1}: id '{ids[repeated]}' is already used in line "
    with pytest.raises(UserError, match=message + f"{ids.index(ids[repeated]) + 1}: ids must"):
        RowFile(path, Prompt)


def test_changes_are_made_to_each_row_as_it_is_read(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(ROW | {"id": str(n)}) + "\n" for n in range(5)))
    loud = RowFile(path, Prompt).map(lambda row: Prompt(row.id, f"{row.prompt}!", row.kind))
    twice = loud.select(np.array([4, 1])).map(lambda row: Prompt(row.id, row.prompt * 2, row.kind))
    assert [(row.id, row.prompt) for row in twice] == [("4", "hi!hi!"), ("1", "hi!hi!")]
    assert [row.prompt for row in RowFile(path, Prompt)] == ["hi"] * 5


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [ROW, {"id": "b", "kind": "safety"}],
        [ROW, ROW | {"id": "b", "kind": "rude"}],
        [ROW, ROW | {"id": "b"}, ROW],
        [ROW, "{", ROW],
        [ROW, "[1]"],
        [ROW, '{"id": "\\ud800"}'],
        [ROW, ROW | {"id": "b", "schema": 9}],
        [ROW, b"\xff\n"],
    ],
)
def test_a_bad_file_is_told_in_the_words_of_one_that_is_read_all_at_once(tmp_path, lines):
    path = tmp_path / "p.jsonl"
    written = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in written))
    messages = []
    for read in (read_prompts, lambda path: RowFile(path, Prompt)):
        with pytest.raises(UserError) as error:
            read(path)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and str(path) in messages[0]


def test_a_file_that_is_not_there_or_is_changed_meanwhile_is_an_error(tmp_path):
    path = tmp_path / "p.jsonl"
    with pytest.raises(UserError, match="there is no file"):
        RowFile(path, Prompt)
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"id": "b"}))
    found = RowFile(path, Prompt)
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"id": "c"}))
    assert found[0] == Prompt(**ROW)
    for text in (path.read_text(), json.dumps(ROW)):
        path.write_text(text)
        with pytest.raises(UserError, match=r"p\.jsonl was changed while it was read"):
            found[1]
