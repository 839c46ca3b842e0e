"""Attack success against a budget of queries or tokens."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.budget_curve import success_curve
from stair_jax.evaluation.case import Answer, Case, Graded

GOODNESS = Metric("goodness", "goodness", worst="low")


def tries(case, scores, tokens=10, attack_tokens=5, finish="stop"):
    """Tries of a case; each costs `tokens`, and `attack_tokens` of the attacker."""
    return [
        Graded(
            Case(case, "?"),
            Answer(
                "b",
                case,
                "pair",
                sample,
                generated_tokens=tokens,
                attack_tokens=attack_tokens * (sample + 1),
                finish=finish,
            ),
            {"goodness": score},
        )
        for sample, score in enumerate(scores)
    ]


ROWS = [
    *tries("a", [1.0, 0.2, 1.0]),
    *tries("b", [1.0, 1.0, 0.5]),
    *tries("c", [0.0, None, 1.0], finish="length"),
    *tries("d", [None, None, None]),
    *tries("e", [1.0, 1.0, 1.0]),
]


def values(cells):
    return [cell.value for cell in cells]


def test_success_by_queries_by_hand():
    cells = success_curve(ROWS, GOODNESS, 0.5, [1, 2, 3, 20], judge="j")
    assert values(cells) == [0.25, 0.5, 0.75, 0.75]  # c; then a; then b; e never
    first = cells[0]
    assert (first.n, first.cases, first.answers, first.missing, first.cut) == (4, 5, 15, 4, 3)
    assert (first.metric, first.judge) == ("attack_success", "j")


def test_success_by_tokens_counts_target_and_attacker_up_to_the_try():
    budgets = [14, 15, 29, 30, 45]  # the n-th try is done after 15 n tokens
    assert values(success_curve(ROWS, GOODNESS, 0.5, budgets, "tokens")) == [
        0.0,
        0.25,
        0.25,
        0.5,
        0.75,
    ]


def test_the_threshold_is_a_success_itself():
    assert values(success_curve(ROWS, GOODNESS, 0.19, [3])) == [0.25]
    harm = Metric("harm", "goodness", worst="high")
    assert values(success_curve(ROWS, harm, 1.0, [1, 3])) == [0.75, 1.0]


def test_a_budget_that_no_case_fits_in_is_no_proof_of_safety():
    (cell,) = success_curve(ROWS, GOODNESS, 0.5, [1], "tokens")
    assert (cell.value, cell.low) == (0.0, 0.0) and cell.high > 0.5


def test_a_metric_that_averages_its_tries_has_no_attacker():
    with pytest.raises(ValueError, match="which score an attacker wants"):
        success_curve(ROWS, Metric("m", "goodness"), 0.5, [1])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=5),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["queries", "tokens"]),
)
def test_more_budget_never_means_less_success(scores, unit):
    rows = [row for index, several in enumerate(scores) for row in tries(str(index), several)]
    cells = success_curve(rows, GOODNESS, 0.5, range(0, 90, 10), unit, num_samples=20)
    found = [(cell.value or 0.0, cell.low or 0.0, cell.high or 0.0) for cell in cells[1:]]
    for earlier, later in pairwise(found):
        assert earlier[0] <= later[0]
    assert {cell.n for cell in cells} == {sum(any(s is not None for s in one) for one in scores)}
