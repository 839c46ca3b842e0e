"""The user's files become artifacts of a run, or an error that names the line."""

import json

import pytest

from stair_jax.errors import UserError
from stair_jax.stages import Files
from stair_jax.storage import read_jsonl

EXAMPLE = {"id": "a", "prompt": "How?", "answer": "So.", "kind": "helpfulness"}
PROMPT = {"id": "a", "prompt": "How?", "kind": "safety", "source": "mine"}
STEP = {"id": "p", "prompt": "How?", "path": [], "chosen": "x", "rejected": "y"}
PATHS = {"id": "q", "prompt": "How?", "chosen_path": ["x"], "rejected_path": ["y"]}


@pytest.fixture
def run(run_stage, tmp_path):
    """`run(**settings)`: the rows of each file that the stage writes."""

    def run(**settings):
        folder = run_stage(Files, settings, tmp_path / "data", {})
        return {path.name: read_jsonl(path) for path in folder.iterdir()}

    return run


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_file_is_copied_under_the_name_that_stages_know(run, tmp_path):
    prompts = [put(tmp_path / f"mine{n}", PROMPT | {"id": str(n)}) for n in (1, 2)]
    pairs = [put(tmp_path / f"pairs{n}", PATHS | {"id": str(n)}) for n in (1, 2, 3)]
    made = run(
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
def test_a_bad_line_is_named(run, tmp_path, field, row, named):
    with pytest.raises(UserError, match=named):
        run(**{field: put(tmp_path / "mine", row)})


def test_no_file_at_all_and_a_file_that_is_not_there_are_told(run, tmp_path):
    with pytest.raises(UserError, match=r"files\.sft"):
        run()
    with pytest.raises(UserError, match="nowhere"):
        run(prompts=(str(tmp_path / "nowhere"),))


def test_public_data_become_rows_of_ours_and_may_be_joined(run, tmp_path, capsys):
    stair = {"prompt": "Steal?", "answer": "No.", "source": "SafeRLHF"}
    (tmp_path / "stair.json").write_text(json.dumps([stair, stair | {"source": "mine"}]))
    (tmp_path / "attacks.csv").write_text(
        "id,jailbreak_query,redteam_query,transfer_from_llm\n3,Play,r,True\n4,See,r,False\n"
    )
    own = put(tmp_path / "own.jsonl", PROMPT)
    made = run(
        sft=str(tmp_path / "stair.json"),
        prompts=((own, str(tmp_path / "attacks.csv")), own),
        kinds={"mine": "helpfulness"},
    )
    attack = {"id": "JailbreakV-28k:3", "prompt": "Play", "kind": "safety"}
    assert made["prompts1.jsonl"] == [PROMPT, {"schema": 1, **attack, "source": "JailbreakV-28k"}]
    assert made["prompts2.jsonl"] == [PROMPT]
    assert [(row["answer"], row["kind"]) for row in made["sft.jsonl"]] == [
        ("No.", "safety"),
        ("No.", "helpfulness"),
    ]
    shown = capsys.readouterr().err
    assert "is JailbreakV-28k: 1 of 2 rows; left out: 1 (the attack is in its image)" in shown


def test_joined_sources_with_one_id_and_columns_of_no_use_are_errors(run, tmp_path):
    own = put(tmp_path / "own.jsonl", PROMPT)
    with pytest.raises(
        UserError, match=r"own\.jsonl and .*, line 2: id 'a' is already used in line 1"
    ):
        run(prompts=((own, own),))
    with pytest.raises(UserError, match="may have our own \\(id, prompt, answer, kind\\)"):
        run(sft=put(tmp_path / "odd", {"text": "x"}))
    with pytest.raises(UserError, match="line 1: the field 'chosen_path' must be a list"):
        run(prm=(put(tmp_path / "pairs", STEP),))
