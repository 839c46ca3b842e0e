"""Records are written and read back, and a row that is none is refused by file, line and field."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.records import (
    KINDS,
    PathPair,
    Prompt,
    SftRow,
    StepPair,
    read_dicts,
    write_rows,
)
from stair_jax.errors import UserError
from stair_jax.storage import read_jsonl

PROMPT = Prompt("a", "How?", "safety", "mine")
EXAMPLE = SftRow("a", "How?", "So.", "helpfulness")
STEP = StepPair("p", "How?", ("x",), "y", "z")
PATHS = PathPair("q", "How?", ("x",), ("y", "z"))
FULL_STEP = replace(
    STEP,
    kind="safety",
    chosen_value=1.5,
    rejected_value=-1.0,
    chosen_visits=4,
    rejected_visits=0,
    depth=2,
    path_tokens=(),
    chosen_tokens=(7, 8),
    rejected_tokens=(9,),
)
FULL_PATHS = replace(PATHS, form="step", chosen_tokens=(1,), rejected_tokens=(2, 3))
CHAT = replace(
    PROMPT,
    system="Be brief.",
    history=({"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}),
)
RECORDS = [
    CHAT,
    PROMPT,
    replace(PROMPT, reference="42"),
    EXAMPLE,
    STEP,
    FULL_STEP,
    PATHS,
    FULL_PATHS,
]

texts, tokens = st.text(), st.lists(st.integers(0, 2**31 - 1)).map(tuple)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts})
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers()
records = st.one_of(
    st.builds(
        Prompt,
        *(texts, texts, st.sampled_from(KINDS), texts, st.none() | texts),
        system=st.none() | texts,
        history=st.none() | st.lists(turns).map(tuple),
    ),
    st.builds(SftRow, texts, texts, texts, st.sampled_from(KINDS)),
    st.builds(
        StepPair,
        *(texts, texts, st.lists(texts).map(tuple), texts, texts),
        kind=st.none() | texts,
        chosen_value=numbers,
        depth=numbers,
        path_tokens=st.none() | tokens,
        chosen_tokens=st.none() | tokens,
    ),
    st.builds(
        PathPair,
        *(texts, texts, st.lists(texts).map(tuple), st.lists(texts).map(tuple)),
        rejected_tokens=st.none() | tokens,
    ),
)


@given(records)
def test_what_is_written_is_read_back(record):
    line = json.dumps(record.to_dict())
    assert type(record).from_dict(json.loads(line), "x") == record


def test_a_file_is_written_and_read_back_in_order(tmp_path):
    pairs = [replace(FULL_STEP, id=str(number)) for number in range(3)]
    write_rows(tmp_path / "dpo.jsonl", pairs)
    rows = read_jsonl(tmp_path / "dpo.jsonl")
    assert read_dicts(rows, StepPair, "dpo.jsonl") == pairs
    assert rows[0] == {
        "schema": 1,
        "id": "0",
        "prompt": "How?",
        "kind": "safety",
        "chosen_value": 1.5,
        "rejected_value": -1.0,
        "chosen_visits": 4,
        "rejected_visits": 0,
        "depth": 2,
        "path": ["x"],
        "chosen": "y",
        "rejected": "z",
        "path_tokens": [],
        "chosen_tokens": [7, 8],
        "rejected_tokens": [9],
    }


def test_what_has_no_value_is_not_written():
    assert PROMPT.to_dict() == {
        "schema": 1, "id": "a", "prompt": "How?", "kind": "safety", "source": "mine"
    }  # fmt: skip
    assert list(STEP.to_dict()) == ["schema", "id", "prompt", "path", "chosen", "rejected"]


def test_the_columns_that_each_row_has():
    assert Prompt.required() == ("id", "prompt", "kind", "source")
    assert SftRow.required() == ("id", "prompt", "answer", "kind")
    assert StepPair.required() == ("id", "prompt", "path", "chosen", "rejected")
    assert PathPair.required() == ("id", "prompt", "chosen_path", "rejected_path")


TEXT, NUMBER = "must be text", "must be a number"
STEPS, IDS = "must be a list of texts", "must be a list of token ids"


@pytest.mark.parametrize(
    ("record", "name", "value", "message"),
    [
        *[(PROMPT, name, 3, TEXT) for name in ("id", "prompt", "kind", "source")],
        *[(EXAMPLE, name, ["x"], TEXT) for name in ("id", "prompt", "answer", "kind")],
        (PROMPT, "source", None, TEXT),
        *[(STEP, name, 3, TEXT) for name in ("id", "prompt", "chosen", "rejected", "kind")],
        (STEP, "path", "x", STEPS),
        (STEP, "path", ["x", 3], STEPS),
        (STEP, "path", None, STEPS),
        *[(STEP, name, "7 8", IDS) for name in ("path_tokens", "chosen_tokens")],
        (STEP, "rejected_tokens", [1, 2.5], IDS),
        (STEP, "rejected_tokens", [True], IDS),
        *[(STEP, name, [1], NUMBER) for name in ("chosen_value", "rejected_value", "depth")],
        *[(STEP, "chosen_tokens", [bad], IDS) for bad in (-1, 2**31)],
        *[(PATHS, name, True, NUMBER) for name in ("chosen_visits", "rejected_visits")],
        *[(PATHS, name, 3, TEXT) for name in ("id", "prompt", "form", "kind")],
        *[(PATHS, name, [["x"]], STEPS) for name in ("chosen_path", "rejected_path")],
        *[(PATHS, name, [None], IDS) for name in ("chosen_tokens", "rejected_tokens")],
    ],
)
def test_a_field_of_a_wrong_type_is_named_with_its_line(record, name, value, message):
    rows = [record.to_dict(), record.to_dict() | {name: value}]
    with pytest.raises(UserError) as error:
        read_dicts(rows, type(record), "rows.jsonl")
    word = "column" if isinstance(record, Prompt | SftRow) else "field"
    assert str(error.value) == f"rows.jsonl, line 2: the {word} {name!r} {message}"


@pytest.mark.parametrize("record", [PROMPT, EXAMPLE, STEP, PATHS])
def test_each_required_field_is_missed_by_name(record):
    for name in record.required():
        row = {key: value for key, value in record.to_dict().items() if key != name}
        with pytest.raises(UserError, match=rf"^x\.jsonl, line 1.* {name!r}"):
            read_dicts([row], type(record), "x.jsonl")


def test_an_unknown_kind_is_refused_where_training_and_search_need_it():
    for record in (PROMPT, EXAMPLE):
        with pytest.raises(UserError, match="line 1: kind 'rude' is unknown: use safety or"):
            read_dicts([record.to_dict() | {"kind": "rude"}], type(record), "x")
    assert read_dicts([STEP.to_dict() | {"kind": "rude"}], StepPair, "x")[0].kind == "rude"


@pytest.mark.parametrize("record", RECORDS)
def test_columns_of_the_user_are_allowed_and_null_is_as_good_as_none(record):
    row = record.to_dict() | {"score": 3, "notes": {"by": "me"}}
    optional = {"reference", "form", "depth", "path_tokens", "chosen_tokens"} - row.keys()
    assert type(record).from_dict(row | dict.fromkeys(optional), "x") == record


def test_whole_numbers_may_be_written_as_floats_and_references_be_anything():
    assert StepPair.from_dict(STEP.to_dict() | {"depth": 2.0}, "x").depth == 2
    for reference in (42, ["a", "b"]):
        row = PROMPT.to_dict() | {"reference": reference}
        assert Prompt.from_dict(row, "x").reference == reference


def test_text_is_read_as_a_number_and_what_is_none_is_no_value():
    row = STEP.to_dict() | {"chosen_value": "1.5", "rejected_value": "N/A", "depth": float("nan")}
    read = StepPair.from_dict(row, "x")
    assert (read.chosen_value, read.rejected_value, read.depth) == (1.5, None, None)
    assert StepPair.not_numbers(row) == ["rejected_value", "depth"]


@pytest.mark.parametrize("record", RECORDS)
def test_a_row_without_a_schema_number_is_of_schema_1(record):
    row = record.to_dict()
    assert row.pop("schema") == record.SCHEMA == 1
    for one in ({}, {"schema": None}, {"schema": 1.0}, {"schema": "1"}, {"schema": "CREATE TABLE"}):
        assert type(record).from_dict(row | one, "x") == record


@pytest.mark.parametrize("record", [PROMPT, EXAMPLE, STEP, PATHS])
@pytest.mark.parametrize("number", [2, 2.0, "2"])
def test_a_row_of_a_newer_schema_is_refused_whatever_its_fields(record, number):
    rows = [record.to_dict(), {"schema": number, "text": "of another form"}]
    with pytest.raises(UserError) as error:
        read_dicts(rows, type(record), "rows.jsonl")
    assert str(error.value).startswith(
        "rows.jsonl, line 2: its schema 2 is newer than 1, the newest that is read here: update "
        "stair_jax"
    )
