"""Pairs of whole answers, by values computed by hand."""

import pytest

from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.synthesis.pairs import make_pair
from stair_jax.synthesis.records import PromptAnswers
from stair_jax.synthesis.settings import PairSettings


def pair(prompt, found, max_similarity=0.9, **settings):
    return make_pair(prompt, found, PairSettings(**settings), max_similarity)


def test_the_best_answer_is_preferred_to_the_worst(make_prompt, make_answers):
    found = make_answers((0.0, 1.0, 2.0), (1.0, 1.0, 3.0), "cut", (0.0, -1.0, -1.0))
    prompt = make_prompt(system="Be good.", history=({"role": "user", "content": "Hi"},))
    made = pair(prompt, found, pairs="best_worst")
    assert made == StepPair(
        "p:1-3",
        "Why?",
        (),
        found.answers[1].text,
        found.answers[3].text,
        system="Be good.",
        history=prompt.history,
        kind="safety",
        chosen_value=3.0,
        rejected_value=-1.0,
        chosen_terminal=True,
        rejected_terminal=True,
        path_tokens=(),
        chosen_tokens=(1, 7),
        rejected_tokens=(3, 7),
    )
    assert StepPair.from_dict(made.to_dict(), "row") == made


@pytest.mark.parametrize(
    ("entries", "settings", "reason"),
    [
        ([(0.0, 1.0, 2.0), (0.0, 1.0, 1.5)], {"v0": 0.5}, "small_gap"),
        ([(0.0, 1.0, 2.0), (0.0, 1.0, 1.0)], {"v0": 0.5, "v1": 2.5}, "low_value"),
        ([(0.0, 1.0, 2.0), "cut"], {}, "unjudged"),
        ([(None, 1.0, None), (1.0, 1.0, 3.0)], {}, "unjudged"),
        (["malformed", "cut"], {}, "unjudged"),
        ([(1.0, 1.0, 3.0), "duplicate"], {}, "alike"),
    ],
)
def test_a_prompt_without_a_pair_has_a_reason(make_prompt, make_answers, entries, settings, reason):
    assert pair(make_prompt(), make_answers(*entries), pairs="best_worst", **settings) == reason


def test_a_prompt_that_was_skipped_gives_none(make_prompt):
    assert pair(make_prompt(), PromptAnswers("p", skipped="long"), pairs="best_worst") == "skipped"


def test_the_given_answer_is_preferred_to_the_worst_of_the_models_own(make_prompt, make_answers):
    entries = [(0.0, 1.0, 2.0), (-1.0, -1.0, -1.0), (0.0, -1.0, -2.0), "malformed"]
    found = make_answers(*entries, given=(1.0, 1.0, 3.0))
    made = pair(make_prompt(), found, pairs="given_own")
    assert (made.id, made.chosen_value, made.rejected_value) == ("p:given-2", 3.0, -2.0)
    # One side has no tokens as sampled, so that both are tokenised alike.
    assert made.chosen_tokens is None and made.rejected_tokens is None


@pytest.mark.parametrize(
    ("entries", "given", "settings", "reason"),
    [
        ([(0.0, 1.0, 2.0)], None, {}, "not_given"),
        ([(0.0, 1.0, 2.0)], "malformed", {}, "bad_given"),
        ([(0.0, 1.0, 2.0)], (0.0, 1.0, 2.0), {}, "small_gap"),
        ([(0.0, 1.0, 2.0)], (None, 1.0, None), {}, "unjudged"),
        (["cut"], (1.0, 1.0, 3.0), {}, "no_answer"),
        ([(0.0, -1.0, -2.0)], (1.0, 1.0, 3.0), {"max_similarity": 0.01}, "alike"),
    ],
)
def test_a_given_answer_without_a_pair_has_a_reason(
    make_prompt, make_answers, entries, given, settings, reason
):
    found = make_answers(*entries, given=given)
    assert pair(make_prompt(), found, pairs="given_own", **settings) == reason


def test_a_given_answer_may_be_the_better_one_by_its_word(make_prompt, make_answers):
    found = make_answers((None, 1.0, None), (0.0, 1.0, 2.0), given=(None, None, None))
    assert pair(make_prompt(), found, pairs="given_own", v0=None).id == "p:given-1"
    found = make_answers((None, 1.0, None), given=(None, None, None))
    assert pair(make_prompt(), found, pairs="given_own", v0=None).id == "p:given-0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": "best_worst", "v0": None}, "v0=None goes with pairs='given_own'"),
        ({"pairs": "given_own", "v0": None, "v1": 1.0}, "unset v1"),
    ],
)
def test_limits_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        PairSettings(**settings)
