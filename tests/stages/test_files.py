"""The user's files become artifacts of a run, or an error that names the line."""

import json

import pytest
from ml_collections import FrozenConfigDict

from stair_jax.errors import UserError
from stair_jax.stages import files
from stair_jax.stages.context import StageContext
from stair_jax.storage import read_jsonl

EXAMPLE = {"id": "a", "prompt": "How?", "answer": "So.", "kind": "helpfulness"}
PROMPT = {"id": "a", "prompt": "How?", "kind": "safety", "source": "mine"}
STEP = {"id": "p", "prompt": "How?", "path": [], "chosen": "x", "rejected": "y"}
PATHS = {"id": "q", "prompt": "How?", "chosen_path": ["x"], "rejected_path": ["y"]}


def run(folder, **settings):
    (folder / "data").mkdir(exist_ok=True)
    files.run(StageContext("data", FrozenConfigDict(settings), None, 0, folder / "data", {}))
    return {path.name: read_jsonl(path) for path in (folder / "data").iterdir()}


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_file_is_copied_under_the_name_that_stages_know(tmp_path):
    prompts = [put(tmp_path / f"mine{n}", PROMPT | {"id": str(n)}) for n in (1, 2)]
    pairs = [put(tmp_path / f"pairs{n}", PATHS | {"id": str(n)}) for n in (1, 2, 3)]
    made = run(
        tmp_path,
        sft=put(tmp_path / "sft", EXAMPLE),
        prompts=tuple(prompts),
        dpo=put(tmp_path / "dpo", STEP),
        prm=tuple(pairs),
    )
    assert made == {
        "sft.jsonl": [EXAMPLE],
        "prompts1.jsonl": [PROMPT | {"id": "1"}],
        "prompts2.jsonl": [PROMPT | {"id": "2"}],
        "dpo.jsonl": [STEP],
        "prm.jsonl": [PATHS | {"id": str(n)} for n in (1, 2, 3)],
    }


@pytest.mark.parametrize(
    ("field", "row", "named"),
    [
        ("sft", EXAMPLE | {"kind": "odd"}, "line 1: kind 'odd'"),
        ("dpo", STEP | {"path": "x"}, "line 1: the field 'path'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, field, row, named):
    with pytest.raises(UserError, match=named):
        run(tmp_path, **{field: put(tmp_path / "mine", row)})


def test_no_file_at_all_and_a_file_that_is_not_there_are_told(tmp_path):
    with pytest.raises(UserError, match=r"files\.sft"):
        run(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        run(tmp_path, prompts=(str(tmp_path / "nowhere"),))
