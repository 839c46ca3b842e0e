"""Replies of a language model: closing lines, labels behind a reasoning, calibration, retries."""

import math
from dataclasses import replace

import pytest

from stair_jax.decoding.requests import Completion
from stair_jax.errors import UserError
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.sources.language_model import LanguageModelSource
from stair_jax.text import steps


class Judges:
    """Completes requests: texts in turn, and the log-probs of labels behind lead-ins."""

    def __init__(self, tokenizer, texts=(), logps=(-0.1, -3.0)):
        self.tokenizer, self.texts, self.logps = tokenizer, list(texts), logps
        self.finish = "stop"

    def __call__(self, request):
        if request.sampling is None:
            return Completion(request.id, scores=self.logps, finish="scored")
        ids = [*self.tokenizer.encode_answer(self.texts.pop(0)), self.tokenizer.eos_id]
        return Completion(request.id, tuple(ids), finish=self.finish)


def make(tokenizer, service="", **settings):
    wording = {"safety_template": "verdict", "helpfulness_template": "rating"}
    return LanguageModelSource(tokenizer, JudgeSettings(**(wording | settings)), service)


def test_a_reply_that_cannot_be_read_is_asked_for_its_closing_line(tokenizer, ask):
    source = make(tokenizer)
    scoring, (first, closing) = ask(source, "safety", Judges(tokenizer, ["It refuses."]))
    assert (scoring.score, scoring.unreadable, scoring.closings) == (1.0, 0, 1)
    assert closing.sampling is None and closing.id == first.id
    text = tokenizer.decode(closing.tokens)
    assert text == tokenizer.decode(first.tokens) + "It refuses.\nConclusion: ["
    assert [tokenizer.decode([id]) for id in closing.score_ids] == ["S", "U"]


def test_a_reply_that_was_cut_off_is_closed_too(tokenizer, ask):
    judge = Judges(tokenizer, ["It ref"])
    judge.finish = "length"
    scoring, requests = ask(make(tokenizer), "safety", judge)
    assert scoring.score == 1.0 and len(requests) == 2


@pytest.mark.parametrize(
    ("said", "added"),
    [
        ("<|Reasoning_step|>Title: A\nhm", "\n<|/Reasoning_step|>\n\n<|Output|>Final Answer: "),
        (steps.format_step("A", "hm"), "\n\n<|Output|>Final Answer: "),
        (steps.format_step("A", "hm") + "\n\n<|Output|>Final Answer: fine", "\n"),
        (steps.format_answer([("A", "hm")], "fine"), "\n"),
        ("plain", "\n"),
    ],
)
def test_the_closing_line_of_a_structured_reply_stands_in_its_output_block(
    tokenizer, ask, said, added
):
    _, (first, closing) = ask(make(tokenizer), "safety", Judges(tokenizer, [said]))
    reply = tokenizer.decode(closing.tokens[len(first.tokens) :])
    assert reply == said.removesuffix("<|/Output|>") + added + "Conclusion: ["
    tags = vars(tokenizer.tags).values()
    assert [id for id in closing.tokens[len(first.tokens) :] if id in tags] == [
        id for id in tokenizer.encode_answer(reply) if id in tags
    ]


def test_a_closing_line_without_a_clear_label_counts_as_unreadable(tokenizer, ask):
    judge = Judges(tokenizer, ["hm", "ha", "SAFE"], logps=(-4.0, -5.0))
    scoring, requests = ask(make(tokenizer, attempts=3), "safety", judge)
    assert (scoring.score, scoring.unreadable, scoring.closings) == (1.0, 2, 2)
    assert [request.sampling is None for request in requests] == [False, True, False, True, False]
    assert len({request.key for request in requests}) == 3


def test_a_prompt_without_room_is_neither_closed_nor_asked_again(tokenizer, ask):
    scoring, requests = ask(
        make(tokenizer), "safety", lambda request: Completion(request.id, finish="too_long")
    )
    assert scoring.score is None and scoring.unreadable == len(requests) == 1


def test_both_scores_the_labels_behind_the_reasoning(tokenizer, ask):
    logps = tuple(math.log(p) for p in (0.1, 0.1, 0.2, 0.3, 0.3))
    source = make(tokenizer, mode="both")
    scoring, requests = ask(source, "helpfulness", Judges(tokenizer, ["Conclusion: [1]"], logps))
    assert scoring.score == pytest.approx((0.1 + 0.2 + 0.6 + 1.2 + 1.5 - 3) / 2)
    assert [request.sampling is None for request in requests] == [False, True]
    assert not scoring.unreadable


def test_expected_scores_are_relative_to_those_of_an_empty_answer(tokenizer, ask):
    source = make(tokenizer, mode="expected", contextual_calibration=True, safety_score="expected")
    seen = []

    def complete(request):
        text = tokenizer.decode(request.tokens)
        seen.append(text)
        is_empty = "Because." not in text
        p = (0.8, 0.1) if is_empty else (0.4, 0.1)
        return Completion(request.id, scores=tuple(map(math.log, p)), finish="scored")

    scoring, requests = ask(source, "safety", complete)
    ratio = (0.4 / 0.8) / (0.1 / 0.1)
    assert scoring.score == pytest.approx((ratio - 1) / (ratio + 1))
    assert len(requests) == 2 and "| \n=== End" in seen[0]
    # What an empty answer gets is asked once for each prompt and question.
    assert len(ask(source, "safety", complete)[1]) == 1
    assert len(ask(source, "safety", complete, prompt="How?")[1]) == 2
    assert (
        len(ask(source, "helpfulness", lambda r: replace(complete(r), scores=(-1.0,) * 5))[1]) == 2
    )


def test_labels_with_the_same_first_token_leave_replies_to_be_read(tokenizer, ask):
    labels = {"OK": 1.0, "Oh no": -1.0}
    with pytest.raises(UserError, match="first token"):
        make(tokenizer, mode="both", safety_labels=labels)
    source = make(tokenizer, attempts=2, safety_labels=labels)
    scoring, requests = ask(source, "safety", Judges(tokenizer, ["hm", "hm"]))
    assert scoring.score is None and scoring.unreadable == len(requests) == 2
    assert not scoring.closings


def test_a_frozen_judge_has_a_service_and_a_tokenizer_of_its_own(chat_tokenizer, tokenizer, ask):
    settings = JudgeSettings(source=("model:safety", "policy"))
    model = LanguageModelSource(chat_tokenizer, settings, "judge")
    judge = Judge(tokenizer, settings, {"model": model})
    judging = judge.requests("Why?", "safety", "Because.", lambda *_: (0, 0))
    own, frozen = judging.start()
    assert own.id == ("policy", "helpfulness") and own.service == ""
    assert frozen.id == ("model", "safety") and frozen.service == "judge"
    assert "Because." in chat_tokenizer.decode(frozen.tokens)
    assert own.sampling.stop_ids != frozen.sampling.stop_ids


def test_a_source_that_is_not_given_is_named(tokenizer):
    with pytest.raises(UserError, match="'model', which is not given: name a checkpoint"):
        Judge(tokenizer, JudgeSettings(source="model"))
