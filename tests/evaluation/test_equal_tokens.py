"""Settings of methods that cost about the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.equal_tokens import (
    Setting,
    equal_tokens,
    equal_tokens_markdown,
    scaling_series,
)
from stair_jax.evaluation.figures import Point

SETTINGS = [
    Setting("greedy", 1, 100.0, Cell(0.5, 0.4, 0.6)),
    Setting("best_of_n", 2, 210.0, Cell(0.55)),
    Setting("best_of_n", 4, 400.0, Cell(0.6, 0.5, 0.7)),
    Setting("best_of_n", 8, 800.0, Cell(0.65)),
    Setting("beam_search", 2, 330.0, Cell(0.7)),
    Setting("beam_search", 4, 700.0, Cell(0.75)),
]


def chosen(budgets):
    return [
        (budget.tokens, {method: one.n for method, one in budget.settings.items()})
        for budget in budgets
    ]


def test_the_method_with_most_settings_gives_the_budgets():
    assert chosen(equal_tokens(SETTINGS)) == [
        (210.0, {"best_of_n": 2}),
        (400.0, {"best_of_n": 4, "beam_search": 2}),  # 400 / 330 = 1.21
        (800.0, {"best_of_n": 8, "beam_search": 4}),
    ]


def test_budgets_of_another_method_and_tolerance():
    assert chosen(equal_tokens(SETTINGS, "greedy", 3.0)) == [(100.0, {"greedy": 1, "best_of_n": 2})]
    assert chosen(equal_tokens(SETTINGS, "best_of_n", 1.2))[1] == (400.0, {"best_of_n": 4})


@pytest.mark.parametrize(
    ("settings", "reference", "words"),
    [
        (SETTINGS, "dvts", "no setting is of the method dvts"),
        ([Setting("greedy", 1, 0.0, Cell(1.0))], "", "no generated tokens"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, reference, words):
    with pytest.raises(ValueError, match=words):
        equal_tokens(settings, reference)


def test_nothing_has_no_budgets():
    assert equal_tokens([]) == []
    assert equal_tokens_markdown([])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 64), st.floats(1, 1e6)), min_size=1),
    st.floats(1, 4),
)
def test_each_chosen_setting_is_within_the_tolerance_and_none_is_nearer(rows, tolerance):
    settings = [Setting(method, n, tokens, Cell(0.5)) for method, n, tokens in rows]
    for budget in equal_tokens(settings, tolerance=tolerance):
        for method, one in budget.settings.items():
            ratios = [
                max(other.tokens / budget.tokens, budget.tokens / other.tokens)
                for other in settings
                if other.method == method
            ]
            own = max(one.tokens / budget.tokens, budget.tokens / one.tokens)
            assert own <= tolerance * (1 + 1e-9)
            assert own <= min(ratios) * (1 + 1e-9)


def test_markdown_has_scores_with_n_and_tokens():
    text = equal_tokens_markdown(equal_tokens(SETTINGS))
    assert text.splitlines() == [
        "| tokens | best\\_of\\_n | beam\\_search |",
        "| ---: | ---: | ---: |",
        "| 210 | 0.550, n 2, 210 tokens | - |",
        "| 400 | 0.600 [0.500, 0.700], n 4, 400 tokens | 0.700, n 2, 330 tokens |",
        "| 800 | 0.650, n 8, 800 tokens | 0.750, n 4, 700 tokens |",
    ]


def test_settings_are_lines_of_the_scaling_figure():
    greedy, best_of_n, _ = scaling_series(SETTINGS)
    assert (greedy.name, greedy.points) == ("greedy", (Point(100.0, 0.5, 0.4, 0.6),))
    assert [point.x for point in best_of_n.points] == [210.0, 400.0, 800.0]
