"""What is said of a file of data: what stages take, kinds, lengths, repeats, overlaps, rows."""

import json

import pytest

from stair_jax.data import file_check
from stair_jax.data.file_check import Checker
from stair_jax.data.held_out_files import HeldOutFiles
from stair_jax.data.report_text import format_report, shown
from stair_jax.data.token_lengths import TokenCounter
from stair_jax.errors import UserError
from stair_jax.text.steps import OUTPUT_CLOSE, OUTPUT_OPEN, REASONING_CLOSE, REASONING_OPEN

ANSWER = (
    f"{REASONING_OPEN}Title: Look.\nIt is harmless.{REASONING_CLOSE}\n\n"
    f"{OUTPUT_OPEN}Final Answer: Use oil.{OUTPUT_CLOSE}"
)


@pytest.fixture
def write(tmp_path):
    """`write(rows)`: the path of a file of JSON lines."""

    def make(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(path)

    return make


def check(path, held_out=None):
    return Checker(TokenCounter(None), held_out).check(path)


def safer(number, prompt, safe=(True, False), id=0):
    return {
        "prompt": prompt,
        "response_0": f"no {number}",
        "response_1": f"yes {number}",
        "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1],
        "safer_response_id": id,
    }


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.feather", "Arrow"),
        ("a.PARQUET", "Parquet"),
        ("a.csv.zst", "CSV, zstd"),
        ("a.jsonl.gz", "JSON lines, gzipped"),
    ],
)
def test_the_form_of_a_file_is_that_of_its_reader(tmp_path, name, form):
    (tmp_path / name).touch()
    assert file_check._form(tmp_path / name) == form


def test_a_public_set_is_known_and_each_use_is_counted(write):
    rows = [safer(1, "Make a mess"), safer(2, "Make a fuss", (False, False))]
    rows.append(safer(3, "Make a mess"))  # the same prompt with other answers
    report = check(write(rows))
    assert (report.form, report.rows, report.objection) == ("JSON lines", 3, "")
    assert list(report.uses) == ["prompts", "sft", "dpo"]
    prompts, sft, dpo = report.uses.values()
    assert prompts.format == "PKU-SafeRLHF" and prompts.rows == 2
    assert prompts.left_out == {"the same as a row before": 1}
    assert sft.rows == 2 and sft.left_out == {"no answer is safe": 1}
    assert dpo.rows == 2 and not dpo.is_refused
    assert report.kinds == {"safety": 2} and report.sources == {"PKU-SafeRLHF": 2}
    assert report.lengths["prompt"].texts == 2 and report.lengths["chosen"].texts == 2
    assert report.lengths["prompt"].median == 3


def test_our_own_columns_kinds_and_structured_answers(write):
    rows = [
        {"id": "a", "prompt": "p", "answer": ANSWER, "kind": "safety", "source": "x"},
        {"id": "b", "prompt": "q", "answer": "plain", "kind": "helpfulness", "source": "x"},
    ]
    report = check(write(rows))
    assert report.uses["sft"].format == "our own columns" and report.structured == 1
    assert report.kinds == {"safety": 1, "helpfulness": 1}
    assert report.columns["prompt"] == {"text": 2}
    assert [row["id"] for row in report.examples] == ["a", "b"]


def test_a_kind_that_is_not_said_is_not_guessed(write):
    report = check(write([{"question": f"what is {n} ?", "answer": f"{n}"} for n in range(4)]))
    assert report.kinds == {"not known": 4} and report.uses["prompts"].rows == 4
    assert len(report.examples) == 3 and report.examples[1]["answer"] == "2"


def test_repeats_are_whole_rows_equal_prompts_and_near_ones(write):
    texts = ["Paint the old garden fence blue", "PAINT the old garden fence: blue"]
    texts += ["Paint an old garden fence", "Bake rye bread", "Bake rye bread"]
    rows = [
        {"id": f"{n}", "prompt": text, "kind": "safety", "source": ""}
        for n, text in enumerate(texts)
    ]
    rows.append(dict(rows[0]))
    report = check(write(rows))
    repeats = report.repeats
    assert (repeats.rows, repeats.equal, repeats.near) == (1, 2, 1)
    (near,) = repeats.examples
    assert near["place"] == "line 3" and near["first_place"] == "line 1"
    assert near["value"] == 0.8  # paint, old, garden, fence of these and blue
    assert report.uses["prompts"].unreadable == 1  # the id that comes again


def test_overlaps_are_told_by_file_and_a_goal_counts(write):
    rows = [
        {"id": "1", "prompt": "Steal a car!", "kind": "safety", "source": ""},
        {"id": "2", "prompt": "x y z", "goal": "steal a car", "kind": "safety", "source": ""},
        {"id": "3", "prompt": "Bake a cake", "kind": "helpfulness", "source": ""},
    ]
    held_out = HeldOutFiles([("advbench.csv", "Steal a car")], {"advbench.csv": 1}, {"l.csv": "no"})
    overlaps = check(write(rows), held_out).overlaps
    assert overlaps.prompts == 2 and overlaps.by_file == {"advbench.csv": {"equal": 2}}
    assert [one["place"] for one in overlaps.examples] == ["line 1", "line 2"]
    assert overlaps.compared == {"advbench.csv": 1} and overlaps.without == {"l.csv": "no"}


def test_a_file_that_no_stage_reads_is_told_why(write):
    columns = check(write([{"target": "Sure"}, {"target": "Here"}]))
    assert columns.objection == "its columns (target) are none that a stage knows"
    assert columns.repeats is None and columns.examples
    dropped = check(write([safer(1, "a", (False, False))]))
    assert dropped.objection == ""  # its prompts are taken
    half = [{"id": "1", "prompt": "p", "kind": "safety", "source": ""}]
    bad = check(write([*half, {"id": "2", "prompt": "q", "kind": "odd", "source": ""}]))
    assert bad.uses["prompts"].is_refused
    assert bad.objection.startswith("as files.prompts, 1 of 2 rows: line 2: kind 'odd' is unknown")


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("nonsense\n", "not JSON"), ("[1]\n", "no")]
)
def test_a_file_without_rows_is_refused(tmp_path, text, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        check(str(path))
    with pytest.raises(UserError, match="there is no file"):
        check(str(tmp_path / "absent.jsonl"))


def test_the_text_shows_three_rows_escaped_and_shortened(write):
    rows = [{"question": f"{n} \x1b[31m " + "x" * 500, "meta": {"n": n}} for n in range(9)]
    rows = [row | {"answer": "red"} for row in rows]
    text = format_report(check(write(rows)))
    assert "\x1b" not in text and r"\x1b[31m x" in text
    assert text.count("\n  row\n") == 3 and 'meta: {"n": 4}' in text
    assert max(map(len, text.splitlines())) < 400
    assert "as prompts  9 rows (question-answer)" in text
    assert shown("a\nb") == "a b" and len(shown("x" * 1000)) == 160
