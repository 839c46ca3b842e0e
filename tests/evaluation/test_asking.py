"""From cases under attacks to answers."""

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet, AskTask, all_asks
from stair_jax.evaluation.attacks import make_attack
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.target import Reply
from stair_jax.testing.scripted_target import ScriptedTarget, run_scripted

REPLY = Reply(
    "reasoning, then final",
    reasoning="reasoning",
    final="uryyb",
    finish="length",
    tokens=5,
    generated_tokens=9,
    prompt_tokens=3,
    steps=2,
    score=0.5,
    well_formed=True,
)


class KindTarget(ScriptedTarget):
    """Notes the kind that it is asked as."""

    def __init__(self, answer):
        super().__init__(answer)
        self.kinds = []

    def of_kind(self, kind):
        self.kinds.append(kind)
        return self


def test_an_answer_has_all_that_the_reply_says(small_set):
    target = ScriptedTarget(lambda asked, key: REPLY)
    (ask, *_) = all_asks([small_set()])
    ((answer,),) = run_scripted([AskTask(ask, Means(target))])
    assert answer == Answer(
        "small",
        "c0",
        text=REPLY.text,
        reasoning="reasoning",
        final="uryyb",
        finish="length",
        tokens=5,
        prompt_tokens=3,
        generated_tokens=9,
        steps=2,
        score=0.5,
        well_formed=True,
    )
    assert Answer.from_dict(answer.to_dict()) == answer and answer.is_cut
    assert not target.open_tasks


def test_an_attack_says_what_was_asked_and_numbers_its_tries(small_set):
    target = ScriptedTarget(lambda asked, key: asked.messages[-1]["content"])
    (ask,) = all_asks([small_set(1, "forged_tags")])
    (answers,) = run_scripted([AskTask(ask, Means(target))])
    assert ask.key == ("small", "forged_tags", "c0")
    assert [answer.sample for answer in answers] == list(range(len(answers))) and answers[1:]
    for answer in answers:
        assert answer.attack == "forged_tags"
        assert answer.asked["messages"][-1]["content"] == answer.text
        assert "prompt 0" in answer.text


def test_the_judge_gets_the_answer_decoded_and_the_reader_as_it_was(small_set):
    target = ScriptedTarget(lambda asked, key: REPLY)
    (ask,) = all_asks([small_set(1, "rot13")])
    ((answer,),) = run_scripted([AskTask(ask, Means(target))])
    assert answer.text == REPLY.text
    assert answer.final == make_attack("rot13").decode("uryyb")


def test_cases_with_choices_are_asked_for_likelihoods_alone(small_set):
    target = ScriptedTarget(lambda asked, key: "never")
    case = Case("c0", "x", choices=("a", "bbb"))
    asked = AskedSet(small_set().benchmark, make_attack("none"), (case,))
    assert asked.is_scored
    ((answer,),) = run_scripted([AskTask(*all_asks([asked]), Means(target))])
    assert answer == Answer("small", "c0", likelihoods=(-1.0, -3.0))
    assert Answer.from_dict(answer.to_dict()) == answer
    assert not target.asked
    with pytest.raises(UserError, match=r"small compares likelihoods.*leave 'rot13' out"):
        AskedSet(asked.benchmark, make_attack("rot13"), (case,))


def test_the_target_is_asked_as_of_the_kind_of_the_prompt(small_set):
    target = KindTarget(lambda asked, key: "x")
    run_scripted([AskTask(ask, Means(target)) for ask in all_asks([small_set(2)])])
    assert target.kinds == [small_set().benchmark.KIND] * 2


def test_asks_are_those_of_all_sets_in_order(small_set):
    sets = [small_set(2), small_set(1, "rot13")]
    assert [ask.key for ask in all_asks(sets)] == [
        ("small", "none", "c0"),
        ("small", "none", "c1"),
        ("small", "rot13", "c0"),
    ]
    assert [asked.name for asked in sets] == ["small", "small:rot13"]
