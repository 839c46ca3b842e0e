"""Right answers: numbers in many forms, letters, texts; the gold solutions of GSM8K."""

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.search.judging.judges import Judge, Judgement, JudgeSettings
from stair_jax.search.judging.sources.checkable_answers import is_right, says_text

GSM8K = Path(os.environ.get("GSM8K_TEST", "data/bench/gsm8k/test.jsonl"))


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("She has 72 clips.", "72"),
        ("She has 72 clips.", 72),
        ("She has 72 clips.", "48 + 24 = <<48+24=72>>72\n#### 72"),
        ("It costs $1,234.50.", "1234.5"),
        ("It costs 1,234,567 dollars", "1234567"),
        ("The answer is 18, as 9 * 2 = 18 in 7 days.", "18"),
        ("The answer is 5 + 3 = 8.", "8"),
        ("Answer: **8**", "8"),
        (r"So \boxed{72}, checked in 2 ways.", "72"),
        (r"So \boxed{\frac{3}{4}}", "3/4"),
        (r"So \boxed{1{,}000}", "1000"),
        ("3/4 of them", "0.75"),
        ("1 1/2", "1.5"),
        ("25%", "0.25"),
        ("25%", "25"),
        ("0.25", "25%"),
        ("\u22125 degrees", "-5"),
        ("-$5", "-5"),
        ("x=5", "5.0"),
        ("#### 7", "7"),
        ("7", ["6", "7"]),
        ("B", "B"),
        ("The answer is (B).", "B"),
        ("(C) because it is so", "(C)"),
        ("D) Paris", "D"),
        (r"\boxed{A}", "A"),
        ("It could be A.\nB", "B"),
        ("Paris", "paris."),
        ("The answer is: the Paris.", "Paris"),
        ("I think so.\nYes!", "yes"),
        ("true", True),
        ("The", "the"),
    ],
)
def test_right_answers(answer, reference):
    assert is_right(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("She has 71 clips.", "72"),
        ("She has 72 clips and 3 pens.", "72"),
        ("72.5", "72"),
        ("1,234", "234"),
        ("5", "-5"),
        (r"\boxed{71} or \boxed{72}", "72"),
        ("1/0", "1"),
        ("9" * 5000, "9"),
        ("", "0"),
        ("none", "0"),
        ("The answer is A", "B"),
        ("A cat has B-sides", "A"),
        ("A or B", "B"),
        ("It is Paris or London.", "Paris"),
        ("I have 5 cats", True),
        ("", "the"),  # an article alone: nothing but itself
        ("...", "?"),
    ],
)
def test_other_answers(answer, reference):
    assert not is_right(answer, reference)


@pytest.mark.parametrize(
    ("answer", "text", "is_said"),
    [("A", "A", True), ("It is so.\nB!", "b", True), ("7", "7.0", False), ("7.0", "7.0", True)],
)
def test_a_text_may_look_like_a_letter_or_a_number(answer, text, is_said):
    assert says_text(answer, text) == is_said


@given(st.fractions(max_denominator=1000), st.sampled_from(["{}", "So it is {}.", r"\boxed{{{}}}"]))
def test_a_number_is_right_in_every_form(number, form):
    text = form.format(number)
    assert is_right(text, str(number)) and not is_right(text, str(number + 1))
    if number.denominator == 1:
        assert is_right(form.format(f"{int(number):,}"), int(number))
        assert is_right(form.format(f"{int(number)}.00"), str(number))
    assert is_right(text, str(float(number))) == (Fraction(str(float(number))) == number)


def test_a_million_characters_are_read():
    for piece in ("1,000", "9", "(A)", "the answer is ", "\\boxed{", "\\frac{", "- ", "$", "= "):
        text = piece * (2**18 // len(piece))
        for reference in ("5", "B", "text"):
            assert not is_right(text, reference)


def test_a_prompt_without_a_reference_is_left_to_the_next_source(tokenizer):
    settings = JudgeSettings(source=("reference", "policy"), helpfulness_prompts=("helpfulness",))
    judge = Judge(tokenizer, settings)

    def judging(answer, **case):
        return judge.requests("q", "helpfulness", answer, lambda *_: (0, 0), **case)

    right, wrong, none = (judging("72", reference=r) for r in ("72", 73, None))
    assert right.start() == wrong.start() == []
    assert right.result == Judgement(1.0, 1.0) and wrong.result == Judgement(-1.0, 1.0)
    assert [request.id for request in none.start()] == [("policy", "helpfulness")]


def test_the_gold_solutions_of_gsm8k_are_right_and_their_neighbours_wrong():
    if not GSM8K.exists():
        pytest.skip("set GSM8K_TEST to the test file of GSM8K")
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1319
    for row in rows:
        solution, _, gold = row["answer"].partition("#### ")
        other = int(gold.replace(",", "")) + 1
        for form in ("It is {}.", "${}", r"\boxed{{{}}}", "The answer is {} apples.", "**{}**"):
            assert is_right(form.format(gold), row["answer"]) and is_right(form.format(gold), gold)
            assert not is_right(form.format(other), row["answer"])
        assert is_right(row["answer"], gold) and is_right(f"{solution}\nAnswer: {gold}", gold)
