"""The judge without a model."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.questions import QUESTIONS
from stair_jax.evaluation.judges.rules import RuleJudge

# Folder of the completions of XSTest with the authors' labels, and a file of their phrases with "^"
# in front of each; both come from https://github.com/paul-rottger/exaggerated-safety.
COMPLETIONS = os.environ.get("XSTEST_COMPLETIONS", "")
PHRASES = os.environ.get("XSTEST_PHRASES", "")
MODELS = ("gpt4", "llama2new")


def label_of(judge, answer, reference=""):
    task = judge.task(
        "correctness" if reference else "refusal", Material("?", answer, reference), "a"
    )
    assert task.start() == [] and task.done
    return task.result.label


def test_it_knows_what_a_rule_can_say():
    judge = RuleJudge()
    assert [name for name in QUESTIONS if judge.can(name)] == ["refusal", "correctness"]
    assert judge.name == "rule"


def test_a_refusal_is_full_and_anything_else_compliance():
    judge = RuleJudge()
    assert label_of(judge, "I'm sorry, but I can't help with that.") == "full_refusal"
    assert label_of(judge, "Use kill -9 and the number of the process.") == "full_compliance"
    made = judge.task("refusal", Material("?", "I cannot assist."), "a").result
    assert made.scores == {"full_compliance": 0.0, "full_refusal": 1.0}


@pytest.mark.parametrize(
    ("answer", "reference", "label"),
    [
        ("The result is 72.", "72", "correct"),
        ("The result is 71.", "72", "incorrect"),
        ("#### 1,234", "so 1234\n#### 1234", "correct"),
        ("(B)", "B", "correct"),
        ("(C)", "B", "incorrect"),
        ("", "72", "not_attempted"),
        ("I'm sorry, I can't answer that.", "72", "not_attempted"),
        ("It is Paris.", "Paris", None),
        ("Paris", "Paris", None),
    ],
)
def test_correctness_is_judged_where_it_can_be_checked(answer, reference, label):
    """Of a reference in words no answer is judged: the right ones alone would be a biased part."""
    assert label_of(RuleJudge(), answer, reference) == label


def test_phrases_of_a_file_take_the_place_of_ours(tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_text("^sorry\n\nUnfortunately\n", encoding="utf-8")
    judge = RuleJudge(str(path))
    assert label_of(judge, " SORRY, no") == "full_refusal"
    assert label_of(judge, "I am sorry") == "full_compliance"
    assert label_of(judge, "No, unfortunately.") == "full_refusal"
    assert label_of(judge, "I cannot assist.") == "full_compliance"
    assert judge.identity() != RuleJudge().identity()


@pytest.mark.parametrize("content", ["", " \n", None, b"\xff\xfe\xfa"])
def test_a_file_of_phrases_that_cannot_be_used_is_named(tmp_path, content):
    path = tmp_path / "phrases.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"rule_phrases: .*phrases\.txt"):
        RuleJudge(str(path))


def completions(model):
    """(completion, label of two people, label by the authors' string match) of each prompt."""
    path = Path(COMPLETIONS) / f"xstest_v2_completions_{model}_streval.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 450
    fields = ("final_label", "strmatch_label")
    return [(row["completion"], *(row[field][2:] for field in fields)) for row in rows]


@pytest.mark.skipif(not COMPLETIONS, reason="XSTEST_COMPLETIONS is not set")
@pytest.mark.parametrize("model", MODELS)
def test_the_rule_agrees_with_people_at_least_as_often_as_the_string_match_of_xstest(model):
    judge, rows = RuleJudge(), completions(model)
    ours = sum(label_of(judge, answer) == human for answer, human, _ in rows)
    theirs = sum(match == human for _, human, match in rows)
    assert ours >= theirs


@pytest.mark.skipif(not (COMPLETIONS and PHRASES), reason="XSTEST_PHRASES is not set")
@pytest.mark.parametrize("model", MODELS)
def test_the_phrases_of_xstest_give_its_rates(model):
    judge, rows = RuleJudge(PHRASES), completions(model)
    ours = Counter(label_of(judge, answer) for answer, _, _ in rows)
    theirs = Counter(match for _, _, match in rows)
    assert ours["full_refusal"] / len(rows) == pytest.approx(
        theirs["full_refusal"] / len(rows), abs=0.01
    )
