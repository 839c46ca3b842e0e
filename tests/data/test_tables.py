"""Parquet and Arrow, as pyarrow and `datasets` write them; what unpacks to too much is refused."""

import json

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from stair_jax.data import tables, unpacking
from stair_jax.data.sources import read_source
from stair_jax.errors import UserError

ROWS = [
    {"prompt": "ü", "turns": [{"role": "user", "content": "x"}], "score": 0.5, "n": None},
    {"prompt": "", "turns": [], "score": None, "n": 3},
] * 300  # more than are unfolded at once
MIB = 2**20


def rows_of(path, columns=()):
    found = read_source(path, columns)
    assert [place for place, _ in found.rows] == [f"row {n + 1}" for n in range(len(found))]
    return [row for _, row in found.rows]


def write_ipc(path, table, opening=ipc.new_file, **options):
    with opening(path, table.schema, options=ipc.IpcWriteOptions(**options)) as file:
        file.write_table(table, max_chunksize=250)
    return path


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("opening", [ipc.new_file, ipc.new_stream])
def test_arrow_files_and_streams_compressed_or_not(tmp_path, opening, compression):
    table = pyarrow.Table.from_pylist(ROWS)
    path = write_ipc(tmp_path / "a.arrow", table, opening, compression=compression)
    assert rows_of(path) == ROWS
    assert rows_of(path, ["n", "other"]) == [{"n": row["n"]} for row in ROWS]


def test_feather_parquet_and_what_datasets_keeps_are_the_same_rows(tmp_path):
    from datasets import Dataset

    table = pyarrow.Table.from_pylist(ROWS)
    feather.write_feather(table, str(tmp_path / "a.feather"))
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (kept,) = (tmp_path / "saved").glob("*.arrow")
    for path in (tmp_path / "a.feather", tmp_path / "a.parquet", kept):
        assert rows_of(path) == ROWS
    assert rows_of(tmp_path / "a.parquet", ["score"]) == [{"score": row["score"]} for row in ROWS]


def folded():
    """A table that names each value once: categories of pandas, views of polars."""
    texts = pyarrow.array(["safety", "helpfulness", "safety", None])
    lists = pyarrow.array([["a"], [], ["b", "a"], None])
    views = pyarrow.list_(pyarrow.string_view())
    arrays = [texts.dictionary_encode(), texts.cast(pyarrow.string_view()), lists.cast(views)]
    return pyarrow.table(arrays, ["kind", "view", "list"]), texts.to_pylist(), lists.to_pylist()


def test_dictionaries_and_views_are_plain_values(tmp_path):
    table, texts, lists = folded()
    named = zip(texts, texts, lists, strict=True)
    rows = [dict(zip(table.column_names, row, strict=True)) for row in named]
    assert rows_of(write_ipc(tmp_path / "a.arrow", table)) == rows
    kinds = table.select(["kind"])
    parquet.write_table(kinds, tmp_path / "a.parquet")
    packed = write_ipc(tmp_path / "b.arrow", kinds, compression="zstd")
    for path in (tmp_path / "a.parquet", packed):
        assert rows_of(path) == [{"kind": text} for text in texts]


@pytest.fixture
def small_limits(monkeypatch):
    """The same limits for smaller files."""
    monkeypatch.setattr(unpacking, "_ALWAYS", 4 * MIB)


def test_an_arrow_bomb_is_refused_before_it_is_unpacked(tmp_path, small_limits, monkeypatch):
    path = write_ipc(
        tmp_path / "a.arrow", pyarrow.table({"s": ["0" * MIB] * 8}), compression="zstd"
    )
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(pyarrow.ipc, "open_stream", None)
    with pytest.raises(UserError, match=r"a\.arrow unpacks to more than 4194304 bytes"):
        read_source(path)


def test_a_long_value_named_once_for_many_rows_is_refused(tmp_path, small_limits):
    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000), ["0" * MIB])
    path = write_ipc(tmp_path / "a.arrow", pyarrow.table({"s": long}), compression="zstd")
    with pytest.raises(UserError, match="unpacks to more than"):
        read_source(path)
    table = pyarrow.table({"s": ["0" * MIB] * 20})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(UserError, match="unpacks to more than"):
        read_source(tmp_path / "a.parquet")


def test_rows_without_content_count_too(tmp_path, small_limits):
    path = tmp_path / "a.arrow"
    feather.write_feather(pyarrow.table({"n": pyarrow.nulls(10**6)}), path, chunksize=10**6)
    with pytest.raises(UserError, match="unpacks to more than"):
        read_source(path)


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet", "a.feather"])
def test_damaged_tables_are_one_line(tmp_path, name):
    table = pyarrow.Table.from_pylist(ROWS)
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(table, path)
    else:
        write_ipc(path, table, compression="zstd")
    whole = path.read_bytes()
    for cut in (0, 3, 9, 40, len(whole) // 3, len(whole) // 2):
        for damaged in (whole[:cut], whole[:cut] + b"\xff" * 9 + whole[cut + 9 :]):
            path.write_bytes(damaged)
            try:
                read_source(path)
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_a_table_under_another_name_says_which_one_to_give_it(tmp_path):
    for ending in ("arrow", "parquet"):
        path = tmp_path / f"a.{ending}"
        table = pyarrow.table({"s": ["x"]})
        if ending == "parquet":
            parquet.write_table(table, path)
        else:
            write_ipc(path, table)
        with pytest.raises(UserError, match=rf"give it a name that ends with \.{ending}"):
            read_source(path.rename(tmp_path / "a.jsonl"))


def test_declared_sizes_are_those_of_the_buffers(tmp_path):
    table = pyarrow.Table.from_pylist(json.loads(json.dumps(ROWS)))
    sizes = {}
    for compression in (None, "zstd"):
        path = write_ipc(tmp_path / "a.arrows", table, ipc.new_stream, compression=compression)
        with open(path, "rb") as file:
            sizes[compression] = tables._declared_size(ipc.MessageReader.open_stream(file))
    assert 0 <= sizes[None] - sizes["zstd"] < 64 * 30  # padding of the buffers
