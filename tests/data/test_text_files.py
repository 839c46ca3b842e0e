"""Text files in every encoding give the same rows; a row that cannot be read is named."""

import csv
import gzip
import itertools
import json
import os
import random
import threading
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data import unpacking
from stair_jax.data.sources import read_source
from stair_jax.data.text_files import read_json_line_parts, read_json_lines
from stair_jax.errors import UserError

ROWS = [{"prompt": 'a, "b"\nc', "n": "1"}, {"prompt": "ü 水", "n": "2"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def rows_of(found):
    return [row for _, row in found.rows]


def reasons(found):
    return [f"{place}: {reason}" for place, reason in found.unreadable]


def table(path, encoding="utf-8", names=("prompt", "n")):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerows([names, *(row.values() for row in ROWS)])
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_encoding_gzipped_or_not(tmp_path, encoding, zipped):
    texts = {"a.jsonl": LINES, "a.json": json.dumps(ROWS, ensure_ascii=False), "b.json": LINES}
    for name, text in texts.items():
        data = text.encode(encoding)
        path = tmp_path / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(data) if zipped else data)
        found = read_source(path)
        assert rows_of(found) == ROWS and not found.unreadable
    plain = table(tmp_path / "a.csv", encoding)
    if zipped:
        plain = tmp_path / "a.csv.gz"
        plain.write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    found = read_source(plain)
    assert rows_of(found) == ROWS
    assert [place for place, _ in found.rows] == ["line 2", "line 4"]  # the first has two lines


def test_tab_separated_values_are_read_as_csv_is(tmp_path):
    path = tmp_path / "a.tsv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("prompt", "n"), *(r.values() for r in ROWS)])
    assert rows_of(read_source(path)) == ROWS
    path.write_text("prompt\tn\na, b\t1\nonly one\n")
    found = read_source(path)
    assert rows_of(found) == [{"prompt": "a, b", "n": "1"}]
    assert reasons(found) == ["line 3: has 1 fields, and the header 2"]


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(width=32))))
def test_json_lines_that_python_writes_are_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert repr(rows_of(read_source(path))) == repr(rows)  # as text, so that NaN is NaN


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
@given(data=st.binary(max_size=60) | st.text(alphabet='[]{}",:\\n\\ 1aé', max_size=60))
def test_whatever_the_bytes_there_are_rows_or_one_line(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("x") / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    try:
        found = read_source(path)
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return
    json.dumps([row for _, row in found.rows], ensure_ascii=False).encode()
    assert len({place for place, _ in (*found.rows, *found.unreadable)}) == len(found)


DEEP = "[" * 20_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "column 2: not JSON (Expecting property name enclosed in double quotes)"),
        ("[1]", "is not a JSON object"),
        ('{"a": 1, "b": 2, "a": 3}', "the row has the key 'a' twice: remove one of them"),
        ('{"a": [{"b": 1, "b": 1}]}', "the column 'a[0]' has the key 'b' twice"),
        ('{"a": "\\ud800"}', "the column 'a' contains a lone surrogate"),
        ('{"a": ' + DEEP, "column 106: lists and objects in 100 levels and more"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "the column 'a[0][0]"),
        ('{"a": ' + "9" * 5000 + "}", "column 1: not JSON (Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_row_is_listed_and_the_others_are_read(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 0}\n\n' + line + '\n{"a": 4}\n', encoding="utf-8")
    found = read_source(path)
    assert found.rows == [("line 1", {"a": 0}), ("line 4", {"a": 4})] and len(found) == 3
    (shown,) = reasons(found)
    assert shown.startswith(f"line 3: {reason}")


def test_bytes_that_are_no_utf_8_are_told_with_line_and_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "x"}\n{"a": "\xff"}\n')
    assert reasons(read_source(path)) == ["line 2: column 8: the byte 0xff is not UTF-8 text"]
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\nx,y\nx,caf\xe9\n")
    found = read_source(path)
    assert found.rows == [("line 2", {"a": "x", "b": "y"})]
    assert reasons(found) == ["line 3: the column 'b' is not UTF-8 text"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b'[{"a": 1},\n {"a": }]', "line 2, column 8: not JSON (Expecting value)"),
        ("a.json", b'[{"a": 1},\n ' + DEEP.encode(), "line 2, column 101: lists and objects in"),
        ("a.json", b'[{"a": "\xff"}]', "line 1, column 9: the byte 0xff is not UTF-8 text"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: column 3 has the name 'a' of column 1"),
        ("a.csv", b'a\n1\n"2\n3\n', "in the row that begins at line 3: unexpected end of data"),
        ("a.csv", b"\xe9\n1\n", "line 1: the header is not UTF-8 text"),
        # Without the time: all workers of the tests have to see the same parameters.
        ("a.jsonl", gzip.compress(b"{}", mtime=0)[:-4], "is a damaged gzip file"),
        ("a.jsonl", b"PK\x03\x04", "is a zip archive: unpack it"),
        ("a.jsonl", b"PAR1", "give it a name that ends with .parquet"),
        ("a.jsonl", "{}".encode("utf-16") + b"x", "is not utf-16 text at byte 6"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_one_line(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_source(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_item_of_a_json_list_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, 2, {"a": 1, "a": 2}]')
    assert reasons(read_source(path)) == [
        "item 2: is not a JSON object",
        "item 3: the row has the key 'a' twice: remove one of them",
    ]


def test_rows_of_a_table_with_other_fields_than_the_header_are_listed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1\n1,2\n\n1,2,3\n")
    found = read_source(path)
    assert found.rows == [("line 3", {"a": "1", "b": "2"})]
    assert reasons(found) == [
        "line 2: has 1 fields, and the header 2",
        "line 5: has 3 fields, and the header 2",
    ]


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.json.zst", "a.csv.zstd", "a.jsonl"])
def test_zstd_of_one_frame_or_several(tmp_path, name, frames):
    texts = {"a.json.zst": json.dumps(ROWS), "a.csv.zstd": table(tmp_path / "t").read_text()}
    data = texts.get(name, LINES).encode()
    cuts = [len(data) * number // frames for number in range(frames + 1)]
    parts = [data[start:end] for start, end in itertools.pairwise(cuts)]
    packed = b"".join(map(zstandard.ZstdCompressor().compress, parts))
    (tmp_path / name).write_bytes(packed)
    assert rows_of(read_source(tmp_path / name)) == ROWS
    (tmp_path / name).write_bytes(packed[:-5])
    with pytest.raises(UserError, match=r"is a damaged zstd file .*: copy it again"):
        read_source(tmp_path / name)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(level=19).compress])
def test_what_unpacks_to_too_much_is_refused_before_it_is_in_memory(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(unpacking, "_ALWAYS", 2**22)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(pack(b" " * 2**24))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.jsonl\.gz unpacks to more than 4194304 bytes"):
        read_source(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    path.write_bytes(pack(b"{}\n" + b" " * 2**21))
    assert rows_of(read_source(path)) == [{}]


def test_a_pipe_is_read_as_a_file_is(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for data in (LINES.encode(), gzip.compress(LINES.encode())):
        writer = threading.Thread(target=path.write_bytes, args=(data,))
        writer.start()
        assert rows_of(read_source(path)) == ROWS
        writer.join()


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_json_lines_have_the_rows_and_places_of_the_whole(tmp_path, seed):
    rng, path = random.Random(seed), tmp_path / "rows"
    lines = [
        '{"a": "é\u2028"}',
        '{"a": 1}\r',
        "",
        " ",
        "{",
        "[1]",
        '{"a": "\\ud800"}',
        b"\xff",
        "\ufeff{}",
    ]
    drawn = [rng.choice(lines) for _ in range(rng.randrange(40))]
    data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in drawn)
    data = rng.choice([b"", b"\xef\xbb\xbf"]) + data + rng.choice([b"", b"\n"])
    path.write_bytes(gzip.compress(data) if rng.random() < 0.5 else data)
    whole = read_json_lines(path)
    for size in (1, 3, 1000):
        parts = list(read_json_line_parts(path, size))
        assert all(0 <= len(part) <= size for part in parts)
        assert [row for part in parts for row in part.rows] == whole.rows
        assert [row for part in parts for row in part.unreadable] == whole.unreadable


@pytest.mark.parametrize(
    "data",
    [b"", '{"a": 1}\n'.encode("utf-16"), gzip.compress(b'{"a": 1}', mtime=0), b"PK\x03\x04", None],
)
def test_files_that_are_not_read_in_parts_are_read_or_refused_as_a_whole(tmp_path, data):
    path = tmp_path / "rows"
    if data is not None:
        path.write_bytes(data)

    def outcome(read):
        try:
            return [found.rows for found in read() if len(found)]
        except UserError as error:
            return str(error)

    assert outcome(lambda: read_json_line_parts(path, 2)) == outcome(
        lambda: [read_json_lines(path)]
    )


def test_damage_in_the_middle_of_a_gzip_file_is_told_whichever_way_it_is_read(tmp_path):
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 10)[:-6])
    for read in (read_json_lines, lambda path: list(read_json_line_parts(path, 2))):
        with pytest.raises(UserError, match="damaged gzip file"):
            read(path)
