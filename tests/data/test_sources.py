import datetime
import json
import subprocess
import sys
from decimal import Decimal

import pytest

from stair_jax.data import sources
from stair_jax.data.sources import source_files, source_name
from stair_jax.errors import UserError

ROWS = [{"prompt": 'a, "b"\nc', "n": "1"}, {"prompt": "ü", "n": "2"}]
DAY = datetime.datetime(2026, 11, 29, 12, 30)


def read_source(source):
    """The rows of a source, all of which can be read."""
    found = sources.read_source(source)
    assert not found.unreadable
    return [row for _, row in found.rows]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a", "a.txt", "a.json"])
def test_json_lines_whatever_their_name(tmp_path, name):
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    assert read_source(write(tmp_path / name, text)) == ROWS


def test_what_datasets_writes(tmp_path):
    from datasets import Dataset, DatasetDict

    nested = [{"instruction": "x", "completions": [{"response": "y", "overall_score": 1.5}]}]
    data = Dataset.from_list(nested)
    data.to_parquet(tmp_path / "a.parquet")
    assert read_source(tmp_path / "a.parquet") == nested
    data.save_to_disk(tmp_path / "one")
    assert read_source(tmp_path / "one") == nested
    DatasetDict({"test": data, "train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    assert read_source(tmp_path / "splits") == ROWS
    assert read_source(tmp_path / "splits" / "test") == nested
    DatasetDict({"a": data, "b": data}).save_to_disk(tmp_path / "odd")
    with pytest.raises(UserError, match="no split 'train': name one of a, b"):
        read_source(tmp_path / "odd")


def test_dates_are_text_and_decimals_numbers(tmp_path):
    from datasets import Dataset

    odd = {"at": DAY, "day": DAY.date(), "took": datetime.timedelta(seconds=90), "ids": [1, 2]}
    rows = [odd | {"score": Decimal("9.50")}, odd | {"score": Decimal("3.00")}]
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    plain = {"at": "2026-11-29T12:30:00", "day": "2026-11-29", "took": 90.0, "ids": [1, 2]}
    made = read_source(tmp_path / "a.parquet")
    assert made == [plain | {"score": 9.5}, plain | {"score": 3}]
    json.dumps(made)


def test_bytes_in_a_table_are_refused_with_row_and_column(tmp_path):
    from datasets import Dataset

    Dataset.from_list([{"s": "x", "image": b"\x00"}]).to_parquet(tmp_path / "a.parquet")
    found = sources.read_source(tmp_path / "a.parquet")
    assert not found.rows
    assert found.unreadable == [
        ("row 1", "the column 'image' holds bytes, which JSON lines cannot hold: drop it")
    ]


def test_a_table_with_a_column_twice_is_one_line_that_says_so(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet as a Parquet file \(.*prompt") as error:
        read_source(tmp_path / "a.parquet")
    assert "\n" not in str(error.value)


def test_the_short_name_of_a_source():
    assert source_name("data/gsm8k.train.jsonl.gz") == "gsm8k"
    assert source_name("openai/gsm8k:main/train") == source_name("openai/gsm8k") == "gsm8k"


def test_the_files_of_a_source(tmp_path):
    from datasets import Dataset

    path = write(tmp_path / "a.jsonl", "{}")
    assert source_files(path) == [path] and source_files("owner/name") == []
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    names = [file.name for file in source_files(tmp_path / "saved")]
    assert {"state.json", "dataset_info.json"} < set(names) and len(names) == 3


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/name:default/test", ("owner/name", "default")),
        ("owner/name:default/test@v1.0", ("owner/name", "default", "v1.0")),
    ],
)
def test_a_hub_id_is_read_through_datasets(monkeypatch, tmp_path, source, given):
    import datasets

    monkeypatch.chdir(tmp_path)
    asked = []

    def load_dataset(*arguments, revision):
        asked.append((*arguments, revision) if revision else arguments)
        parts = {name: datasets.Dataset.from_list([{"s": name}]) for name in ("train", "test")}
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    split = "test" if "/test" in source else "train"
    assert read_source(source) == [{"s": split}]
    assert asked == [given]
    with pytest.raises(UserError, match="owner/name has no split 'other': name one of train, test"):
        read_source("owner/name:default/other")
    # An existing file takes precedence over a hub id of the same name.
    (tmp_path / "owner").mkdir()
    write(tmp_path / "owner" / "name", '{"s": "file"}\n')
    assert read_source("owner/name") == [{"s": "file"}]


def test_what_cannot_be_read_is_told_in_one_line(tmp_path, monkeypatch):
    import datasets

    def unreachable(*arguments, **options):
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        UserError, match=r"no/where \(which is no file here\) .*Couldn't reach the hub.*: correct"
    ):
        read_source("no/where")
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        with pytest.raises(UserError, match=f"there is no file .*{name}"):
            read_source(tmp_path / name)
    with pytest.raises(UserError, match="is a folder, but not of datasets' save_to_disk"):
        read_source(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*b\.parquet as a Parquet file"):
        read_source(write(tmp_path / "b.parquet", "no parquet"))


def test_json_lines_need_no_datasets(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "x"}\n')
    program = (
        "import sys; from stair_jax.data.sources import read_source\n"
        f"read_source({str(path)!r})\n"
        "print(sorted({'datasets', 'pyarrow', 'tensorflow', 'seqio'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_a_pattern_is_its_files_by_name_whatever_their_formats(tmp_path):
    from datasets import Dataset

    Dataset.from_list([{"n": 2}]).to_parquet(tmp_path / "part-2.parquet")
    write(tmp_path / "part-1.jsonl", '{"n": 1}\n[]\n')
    (tmp_path / "part-0").mkdir()
    write(tmp_path / "other.jsonl", '{"n": 3}\n')
    pattern = tmp_path / "part-*"
    found = sources.read_source(pattern)
    assert found.rows == [
        (f"{tmp_path}/part-1.jsonl, line 1", {"n": 1}),
        (f"{tmp_path}/part-2.parquet, row 1", {"n": 2}),
    ]
    assert found.unreadable == [(f"{tmp_path}/part-1.jsonl, line 2", "is not a JSON object")]
    assert [path.name for path in source_files(pattern)] == ["part-1.jsonl", "part-2.parquet"]
    assert source_name(pattern) == "part-*"
    assert len(read_source(str(tmp_path / "**" / "o*.jsonl"))) == 1
    write(tmp_path / "a[1].jsonl", '{"n": 4}\n')  # a name, not a pattern
    assert read_source(tmp_path / "a[1].jsonl") == [{"n": 4}]
    for read in (sources.read_source, sources.check_source, source_files):
        with pytest.raises(UserError, match=r"there is no file .*none\*: nothing matches"):
            read(tmp_path / "none*")


def test_a_config_of_the_hub_alone_is_its_train_split(monkeypatch):
    import datasets

    parts = {name: datasets.Dataset.from_list([{"s": name}]) for name in ("train", "test")}
    made = datasets.DatasetDict(parts)
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, revision: made)
    assert read_source("owner/name:default@v1") == [{"s": "train"}]
