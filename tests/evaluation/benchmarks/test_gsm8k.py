"""GSM8K: which number of a solution counts."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.gsm8k import Gsm8k
from stair_jax.evaluation.case import Answer, Case

BENCHMARK = Gsm8k()


def right(final, reference):
    case = Case("0", "How much?", reference=reference)
    return BENCHMARK.grade(case, Answer("gsm8k", "0", final=final), None)["right"]


def test_the_reference_is_the_number_behind_the_mark_without_commas_and_dollars(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [
        {"question": " 3 eggs of $1? ", "answer": "3*1=<<3*1=3>>3\n#### 3"},
        {"question": "And 500?", "answer": "So much.\n#### $1,500"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = BENCHMARK.read(path)
    assert (first.prompt, first.reference, first.id) == ("3 eggs of $1?", "3", "0")
    assert second.reference == "1500"


@pytest.mark.parametrize("answer", ["no mark 3", "#### three", "#### "])
def test_a_solution_without_a_number_is_named(tmp_path, answer):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "a", "answer": answer}))
    with pytest.raises(UserError, match="line 1: the column 'answer' does not end with ####"):
        BENCHMARK.read(path)


@pytest.mark.parametrize(
    "final",
    [
        "1500", "$1,500", "She pays $1,500.00.", "3 * 500 = 1500", "The answer is **1,500** cents.",
        r"so \boxed{1500}", "#### 1,500", "First 20, then 1500.",
        "The answer is 1500, which is 3 times 500.",
    ],
)  # fmt: skip
def test_the_announced_number_counts_or_else_the_last(final):
    assert right(final, "1500") == 1.0


@pytest.mark.parametrize("final", ["", "I cannot say.", "1500 and then 20", "15", "-1500", "1.500"])
def test_another_number_or_none_is_wrong(final):
    assert right(final, "1500") == 0.0


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", "$"]), st.booleans())
def test_a_number_is_found_however_it_is_written(number, currency, has_commas):
    digits = f"{abs(number):,}" if has_commas else str(abs(number))
    written = f"{'-' if number < 0 else ''}{currency}{digits}"
    for text in (written, f"The answer is {written}.", f"He has {written}", f"#### {written}"):
        assert right(text, str(number)) == 1.0
        assert right(text, str(number + 1)) == 0.0


@given(st.text(st.characters(exclude_categories=["Nd", "Cs"]), max_size=60))
def test_a_text_without_digits_is_wrong(text):
    assert right(text, "0") == 0.0


def test_all_gold_solutions_are_right_and_each_is_wrong_for_another_question(real_data):
    path = BENCHMARK.SOURCE.find(real_data)
    cases = BENCHMARK.read(path)
    solutions = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    assert len(cases) == 1319
    assert sum(
        right(text, case.reference) for case, text in zip(cases, solutions, strict=True)
    ) == (1319)
    shifted = zip(cases, solutions[1:], strict=False)
    others = [right(text, case.reference) for case, text in shifted]
    same = [a.reference == b.reference for a, b in pairwise(cases)]
    assert sum(others) == sum(same)
