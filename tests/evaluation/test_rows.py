"""Rows of benchmarks: whatever the form of the file, all of them or one line that says why not."""

import csv
import gzip
import json

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import checked_cases, read_cases, read_rows, usual_places

ROWS = [{"prompt": 'Say "hi",\nplease', "n": "1"}, {"prompt": "Größe?", "n": "2.5"}]


def write_table(path, rows, delimiter=","):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write(path, rows=ROWS):
    """A file of rows in the form that its name says."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(path)
    elif kind in ("csv", "tsv"):
        write_table(path, rows, "," if kind == "csv" else "\t")
    else:
        lines = "\n".join(json.dumps(row) for row in rows)
        path.write_text(json.dumps(rows) if kind == "json" else lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


NAMES = ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.csv.gz", "a.jsonl.gz", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_the_form_of_the_file_makes_no_difference(tmp_path, name):
    rows = read_rows(write(tmp_path / name), "prompt", ("number", "n"))
    assert [row.text("prompt") for row in rows] == [row["prompt"] for row in ROWS]
    assert [row.number_in(("number", "n")) for row in rows] == [1.0, 2.5]
    assert [row.number for row in rows] == [0, 1]


def test_a_missing_column_is_named_with_the_line_and_the_columns_that_are_there(tmp_path):
    path = write(tmp_path / "a.csv")
    with pytest.raises(UserError) as error:
        read_rows(path, "prompt", ("goal", "Goal"))
    message = str(error.value)
    assert message.startswith(f"{path}, line 2: there is no column 'goal' or 'Goal', only 'prompt'")
    assert "\n" not in message


def test_one_row_without_the_column_is_enough(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": "a", "goal": "b"}, {"prompt": "c"}])
    with pytest.raises(UserError, match="line 2: there is no column 'goal', only 'prompt'"):
        read_rows(path, "goal")


def test_many_columns_are_not_all_listed(tmp_path):
    path = write(tmp_path / "a.jsonl", [{f"c{number}": 1 for number in range(25)}])
    with pytest.raises(UserError, match=r"'c0', .*'c19' and 5 more: take"):
        read_rows(path, "prompt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "prompt,n\na,1\nb\n", r"a\.csv, line 3: has 1 fields, .*; 1 of 2 rows cannot"),
        ("a.jsonl", '{"prompt": "a"}\n[1]\n{\n', "line 2: is not a JSON object; 2 of 3 rows"),
        ("a.csv", "prompt,n\n", "has no rows"),
        ("a.csv", "", "has no rows"),
        ("a.json", "[]", "has no rows"),
        ("a.json", '[{"prompt": "a"},', "line 1, column"),
    ],
)
def test_a_row_that_cannot_be_read_is_not_dropped(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_rows(path, "prompt")
    assert str(path) in str(error.value)


def test_there_is_no_file(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_rows(tmp_path / "a.csv", "prompt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("  ", "item 1: the column 'prompt' is empty"),
        (None, "item 1: the column 'prompt' is empty"),
        (["a"], "item 1: the column 'prompt' is not text"),
        (True, "item 1: the column 'prompt' is not text"),
    ],
)
def test_a_prompt_is_text(tmp_path, value, message):
    (row,) = read_rows(write(tmp_path / "a.json", [{"prompt": value}]), "prompt")
    with pytest.raises(UserError, match=message):
        row.text("prompt")


def test_numbers_are_text_where_text_is_asked_for_and_cells_may_have_a_default(tmp_path):
    (row,) = read_rows(write(tmp_path / "a.json", [{"a": 7, "b": None, "c": "", "d": [1]}]), "a")
    assert row.text("a") == "7"
    assert [row.text(name, "none") for name in ("b", "c", "e")] == ["none"] * 3
    with pytest.raises(UserError, match="'d' is not text"):
        row.text("d", "none")
    with pytest.raises(UserError, match="'c' is no number"):
        row.number_in("c")
    with pytest.raises(UserError, match="no column 'e'"):
        row.number_in("e")


def test_cases_have_ids_groups_and_prompts_without_white_space_around(tmp_path):
    rows = [
        {"name": "x", "prompt": " a \n", "kind": "k", "hint": "h"},
        {"name": "y", "prompt": "b", "kind": "l", "hint": ""},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    cases = read_cases(path, "prompt", id="name", group="kind", columns={"target": "hint"})
    assert cases == [
        Case("x", "a", "k", columns={"target": "h"}),
        Case("y", "b", "l", columns={"target": ""}),
    ]
    assert [case.id for case in read_cases(path, "prompt")] == ["0", "1"]


def test_the_same_prompt_twice_is_one_cluster_and_both_rows_stay():
    cases = checked_cases("a.csv", [Case("1", "a"), Case("2", "b"), Case("3", "a")])
    assert [case.id for case in cases] == ["1", "2", "3"]
    assert cases[0].cluster == cases[2].cluster != ""
    assert cases[1].cluster == ""


def test_the_same_prompt_after_another_chat_is_another_case():
    history = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"})
    cases = checked_cases("a.csv", [Case("1", "a"), Case("2", "a", history=history)])
    assert [case.cluster for case in cases] == ["", ""]


def test_an_id_that_comes_twice_is_an_error():
    with pytest.raises(UserError, match=r"a\.csv: the id '1' comes 2 times"):
        checked_cases("a.csv", [Case("1", "a"), Case("1", "b")])


def test_a_file_may_be_in_its_folder_or_not_and_gzipped_or_not():
    assert usual_places("x", "a.csv", "b.csv") == (
        "x/a.csv", "x/a.csv.gz", "x/b.csv", "x/b.csv.gz",
        "a.csv", "a.csv.gz", "b.csv", "b.csv.gz",
    )  # fmt: skip
