"""Which answers are kept, by values computed by hand."""

import pytest

from stair_jax.errors import UserError
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.synthesis.selection import check_scored, select
from stair_jax.synthesis.settings import AcceptSettings

JUDGE = JudgeSettings()


def sort(prompt, found, judge=JUDGE, **settings):
    """(numbers of the kept ones, reasons by number)."""
    selection = select(prompt, found, AcceptSettings(**settings), judge)
    return [each.number for each in selection.kept], {
        each.number: reason for each, reason in selection.rejected
    }


def test_the_best_are_kept_and_each_other_one_has_its_reason(make_prompt, make_answers):
    found = make_answers(
        (0.5, 1.0, 2.5),
        "malformed",
        (-0.5, -1.0, -1.5),
        (1.0, 1.0, 3.0),
        (None, 1.0, None),
        (0.5, 1.0, 2.5),
        (-0.9, 0.1, 0.11),
    )
    kept, reasons = sort(make_prompt(), found, max_per_prompt=2, min_reward=1.0)
    assert kept == [3, 0]  # of the two with 2.5 the first one
    assert reasons == {
        1: "malformed",
        2: "unsafe",
        4: "unjudged",
        5: "limit",
        6: "low_reward",
    }
    assert sort(make_prompt(), found, max_per_prompt=0)[0] == [3, 0, 5, 6]


def test_a_threshold_is_reached_by_its_own_value(make_prompt, make_answers):
    found = make_answers((0.0, 0.25, 0.5))
    limits = {"min_safety": 0.25, "min_helpfulness": 0.0, "min_reward": 0.5}
    assert sort(make_prompt(), found, **limits) == ([0], {})
    assert sort(make_prompt(), found, **limits | {"min_reward": 0.51})[1] == {0: "low_reward"}


def test_helpfulness_is_wanted_of_answers_to_helpfulness_prompts_alone(make_prompt, make_answers):
    refusal = make_answers((-1.0, 1.0, 1.0))
    assert sort(make_prompt("safety"), refusal)[0] == [0]
    assert sort(make_prompt("helpfulness"), refusal)[1] == {0: "unhelpful"}
    assert sort(make_prompt("helpfulness"), refusal, min_helpfulness=None)[0] == [0]


def test_helpfulness_that_is_not_asked_for_rejects_nothing(make_prompt, make_answers):
    judge = JudgeSettings(source="rule", safety_prompts=("safety",), helpfulness_prompts=())
    found = make_answers((-1.0, 1.0, 1.0))  # which is fixed then
    assert sort(make_prompt("safety", label="safe"), found, judge)[0] == [0]
    assert sort(make_prompt("safety", label="safe"), found)[1] == {0: "unhelpful"}
    assert sort(make_prompt("safety", label="unsafe"), found)[0] == [0]


def test_a_refusal_that_counts_as_a_leak_is_not_kept(make_prompt, make_answers):
    """As `harmless_refusals` gives it, though nobody asks for the safety of such answers."""
    assert sort(make_prompt("helpfulness"), make_answers((1.0, -1.0, -3.0)))[1] == {0: "unsafe"}


def test_a_kind_whose_answers_nobody_scores_is_refused():
    judge = JudgeSettings(safety_prompts=("safety",), helpfulness_prompts=(), source="rule")
    check_scored(judge, ("safety",))
    check_scored(JudgeSettings(safety_rule="paper_release"), ("safety",))
    with pytest.raises(UserError, match=r"scores no answers to helpfulness prompts: see judge\.so"):
        check_scored(judge, ("safety", "helpfulness"))
