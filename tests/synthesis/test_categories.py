"""Categories that the rows of prompts say."""

import pytest

from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.driver import Driver
from stair_jax.errors import UserError
from stair_jax.synthesis.categories import ChosenCategories, KnownCategories, check_kinds
from stair_jax.synthesis.policies import about
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.text.policies import POLICIES as OURS

POLICIES = {"cyber": "C.", "safety": "S.", "general": "G."}


def category(by, policies, kind="safety", own=None):
    prompt = SynthesisPrompt("p1", "Why?", kind, category=own)
    return KnownCategories(by, policies).of(prompt)


@pytest.mark.parametrize(
    ("by", "kind", "own", "expected"),
    [
        ("column", "safety", "cyber", "cyber"),
        ("column", "safety", None, "general"),
        ("column", "safety", "", "general"),
        ("kind", "safety", "cyber", "safety"),
        ("kind", "helpfulness", "cyber", "general"),
    ],
)
def test_a_category_is_that_of_the_column_or_the_kind(by, kind, own, expected):
    assert category(by, POLICIES, kind, own) == expected
    assert category(by, {}, kind, own) == ""


def test_a_prompt_without_a_policy_is_refused():
    with pytest.raises(UserError, match=r"'p1' has no column 'category': add it, set policies\.g"):
        category("column", {"cyber": "C."})
    with pytest.raises(UserError, match=r"'cybr', which has no policy: did you mean cyber\?"):
        category("column", POLICIES, own="cybr")


def test_kinds_without_a_policy_are_refused_before_any_prompt_is_read():
    check_kinds((), {"general"})
    check_kinds(("safety",), {"safety"})
    with pytest.raises(UserError, match=r"no policy for 'helpfulness': set policies\.helpfulness"):
        check_kinds((), {"safety"})


def test_topics_that_begin_alike_for_a_model_are_refused(tokenizer):
    driver = Driver(ScriptedEngine(RandomReplies(tokenizer)))
    policies = {"a": "Hate: insults.", "b": "Harm: wounds.", "c": "Cyber: attacks."}
    with pytest.raises(
        UserError, match="cannot tell Hate, Harm, Cyber apart by their first tokens"
    ):
        ChosenCategories(tokenizer, policies, driver)


def test_our_topics_begin_with_different_words():
    assert len({about(policy).lower()[:3] for policy in OURS.values()}) == len(OURS)
