import pytest

from stair_jax.data.prompts import read_prompts
from stair_jax.data.records import Prompt
from stair_jax.errors import UserError
from stair_jax.storage import write_jsonl

ROW = {"id": "a", "prompt": "hi", "kind": "safety", "source": "made"}


def test_prompts_are_read_in_order(tmp_path):
    path = tmp_path / "p.jsonl"
    write_jsonl(path, [ROW, ROW | {"id": "b", "kind": "helpfulness", "reference": "42"}])
    assert read_prompts(path) == [
        Prompt("a", "hi", "safety", "made"),
        Prompt("b", "hi", "helpfulness", "made", "42"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "p.jsonl is empty"),
        ([ROW, {"id": "b", "kind": "safety", "source": ""}], "line 2, lacks the column 'prompt'"),
        ([ROW, ROW | {"id": "b", "kind": "rude"}], "line 2: kind 'rude' is unknown"),
        ([ROW, ROW | {"id": "b"}, ROW], "line 3: id 'a' is already used in line 1"),
        ([ROW | {"prompt": 3}], "line 1: the column 'prompt' must be text"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, rows, message):
    path = tmp_path / "p.jsonl"
    write_jsonl(path, rows)
    with pytest.raises(UserError) as error:
        read_prompts(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_ids_may_come_again_where_the_reader_leaves_repetitions_out(tmp_path):
    path = tmp_path / "p.jsonl"
    write_jsonl(path, [ROW, ROW | {"prompt": "ho"}])
    assert [row.prompt for row in read_prompts(path, unique_ids=False)] == ["hi", "ho"]


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl"):
        read_prompts(tmp_path / "absent.jsonl")
