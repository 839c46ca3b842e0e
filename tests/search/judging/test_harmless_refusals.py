"""Refusals of harmless prompts that count as a leak does, and prompts that are labelled safe."""

import itertools

import pytest

from stair_jax.decoding.driver import Driver
from stair_jax.search.judging.judges import Judge, Judgement, JudgeSettings
from stair_jax.search.judging.probe import run_probe
from stair_jax.search.judging.probe_cases import ProbeCase
from stair_jax.search.judging.probe_settings import SearchJudge
from stair_jax.search.judging.reward import FAMILIES, SafetyReward
from stair_jax.search.judging.sources.source import Known, Source

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "Use the kill command."
TEMPLATE = "Rate.\nQ: {prompt}\nA: {answer}"
SOURCES = {
    "rule": {"source": ("rule", "policy")},
    "policy": {"source": "policy", "safety_prompts_source": ("rule:safety", "policy:helpfulness")},
    "model": {"source": "model", "safety_prompts_source": ("rule:safety", "model:helpfulness")},
}
REWARD = SafetyReward()


class Fixed(Source):
    """Gives one score to everything, and counts how often it is asked."""

    def __init__(self, score):
        self.score, self.asked = score, 0

    def ask(self, question, case, asking):
        self.asked += 1
        return Known(self.score)


def judge_answer(tokenizer, kind, answer, score=0.5, label=None, **settings):
    """(judgement, number of requests that were made, the source)."""
    other = Fixed(score)
    given = JudgeSettings(
        helpfulness_template=TEMPLATE, safety_template=TEMPLATE, mode="expected", **settings
    )
    judge = Judge(tokenizer, given, {"policy": other, "model": other})
    judging = judge.requests("How?", kind, answer, lambda question, attempt: (0, 0), label=label)
    requests = judging.start()
    assert judging.done
    return judging.result, len(requests), other


def reward(*arguments, **settings):
    judgement, _, _ = judge_answer(*arguments, **settings)
    return REWARD(judgement.helpfulness, judgement.safety)


# R = S H + 2 S, by hand: (what, kind, answer, label, H of the judge) -> unhelpful, unsafe.
TABLE = [
    ("harmful, refused", "safety", REFUSAL, None, 0.5, 2.5, 2.5),
    ("harmful, leaked", "safety", ANSWER, None, 0.5, -2.5, -2.5),
    ("harmful, leaked in full", "safety", ANSWER, "unsafe", 1.0, -3.0, -3.0),
    ("harmless, answered", "helpfulness", ANSWER, None, 0.5, 2.5, 2.5),
    ("harmless, answered badly", "helpfulness", ANSWER, None, -1.0, 1.0, 1.0),
    ("harmless, refused", "helpfulness", REFUSAL, None, -1.0, 1.0, -3.0),
    ("labelled safe, answered", "safety", ANSWER, "safe", 0.5, 2.5, 2.5),
    ("labelled safe, refused", "safety", REFUSAL, "safe", -1.0, -1.0, -3.0),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_rewards_by_hand(tokenizer, row, source):
    _, kind, answer, label, score, unhelpful, unsafe = row
    for wanted, setting in ((unhelpful, "unhelpful"), (unsafe, "unsafe")):
        found = reward(
            tokenizer, kind, answer, score, label, harmless_refusals=setting, **SOURCES[source]
        )
        assert found == wanted


def test_by_the_rule_alone_helpfulness_is_fixed(tokenizer):
    alone = {"safety_prompts_source": "rule", "source": ("rule", "policy")}
    rewards = {
        (answer, label): reward(tokenizer, "safety", answer, label=label, **alone)
        for answer in (REFUSAL, ANSWER)
        for label in (None, "safe")
    }
    assert rewards == {
        (REFUSAL, None): 1.0, (ANSWER, None): -1.0, (REFUSAL, "safe"): -1.0, (ANSWER, "safe"): 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", SOURCES)
def test_no_leak_is_below_a_refusal_of_a_harmless_prompt_and_no_answer_is(
    tokenizer, source, family
):
    made = SafetyReward(family=family)
    unsafe = {"harmless_refusals": "unsafe", **SOURCES[source]}
    scores = [step / 4 - 1 for step in range(9)]

    def rewards(kind, answer):
        judged = (judge_answer(tokenizer, kind, answer, score, **unsafe)[0] for score in scores)
        return [made(each.helpfulness, each.safety) for each in judged]

    refused, leaked = rewards("helpfulness", REFUSAL), rewards("safety", ANSWER)
    answered, safe = rewards("helpfulness", ANSWER), rewards("safety", REFUSAL)
    assert len(set(refused)) == 1, "it does not depend on what a judge makes of its helpfulness"
    assert max(refused) <= min(leaked) < max(leaked) < min(answered)
    assert min(leaked) == refused[0], "a leak in full is as bad"
    for falling, rising in itertools.product((leaked,), (answered, safe)):
        assert falling == sorted(falling, reverse=True) and rising == sorted(rising)


def test_a_refusal_whose_scores_are_fixed_costs_no_request(tokenizer):
    fixed = {"source": "policy", "harmless_refusals": "unsafe"}
    judgement, requests, other = judge_answer(tokenizer, "helpfulness", REFUSAL, **fixed)
    assert (judgement, requests, other.asked) == (Judgement(1.0, -1.0), 0, 0)
    assert judge_answer(tokenizer, "helpfulness", ANSWER, **fixed)[2].asked == 1
    assert judge_answer(tokenizer, "helpfulness", REFUSAL, source="policy")[2].asked == 1


def test_what_a_refusal_is_follows_the_rule(tokenizer):
    fixed = {"source": "policy", "harmless_refusals": "unsafe", "rule": "paper_release"}
    assert judge_answer(tokenizer, "helpfulness", "Oh, sorry!", **fixed)[0].safety == -1.0
    fixed["rule"] = "refusal"
    assert judge_answer(tokenizer, "helpfulness", "Oh, sorry!", **fixed)[0].safety == 1.0


def test_the_rule_of_the_release_heeds_a_label_too(tokenizer):
    release = {"safety_rule": "paper_release", "source": "policy"}
    for label, safety in ((None, 1.0), ("unsafe", 1.0), ("safe", -1.0)):
        judged, _, _ = judge_answer(tokenizer, "safety", "Sorry.", label=label, **release)
        assert judged == Judgement(-1.0, safety)


def test_the_probe_asks_about_refusals_all_the_same(tokenizer, make_engine):
    cases = [
        ProbeCase("How?", "helpfulness", REFUSAL, None, -1),
        ProbeCase("How?", "helpfulness", ANSWER, None, 1),
    ]
    other = Fixed(0.25)
    settings = SearchJudge(source="model", harmless_refusals="unsafe")
    judge = Judge(tokenizer, settings, {"model": other})
    result = run_probe(judge, Driver(make_engine()), cases, seed=0)
    assert result.scored("helpfulness") == ([0.25, 0.25], [-1, 1]) and other.asked == 2
    assert settings.judging == SearchJudge(source="model").judging
    assert judge.fixes(judge.requests("", "helpfulness", REFUSAL, lambda q, a: (0, 0)).case)
