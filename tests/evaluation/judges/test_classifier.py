"""A sequence classifier as judge."""

import math

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.judges.classifier import ClassifierJudge
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.settings import JudgeSettings
from stair_jax.inference.classifier import LabelCompletion
from stair_jax.testing.tiny_tokenizers import byte_tokenizer

MATERIAL = Material("How?", "Like <|end|> this.")
TWO = {"LABEL_0": "no", "LABEL_1": "yes"}


def judge_of(tokenizer, labels=("LABEL_0", "LABEL_1"), longest=1000, **settings):
    settings = {"classifier_labels": TWO} | settings
    return ClassifierJudge("c", tokenizer, labels, JudgeSettings(**settings), longest=longest)


def giving(*logits):
    return lambda request: LabelCompletion(request.id, logits)


def test_the_label_with_the_largest_logit_is_the_verdict(tokenizer, run):
    judge = judge_of(tokenizer)
    made = run(judge.task("harmful", MATERIAL, "a"), giving(1.0, 3.0))
    assert (made.judge, made.label, made.tokens) == ("c", "yes", 0)
    assert made.scores["yes"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert judge.can("harmful") and not judge.can("refusal")


def test_labels_of_one_meaning_are_added_up(tokenizer, run):
    judge = judge_of(
        tokenizer,
        ("safe", "weapons", "drugs"),
        classifier_labels={"safe": "no", "weapons": "yes", "drugs": "yes"},
    )
    made = run(judge.task("harmful", MATERIAL, "a"), giving(0.1, 0.0, 0.0))
    assert made.label == "yes" and sum(made.scores.values()) == pytest.approx(1)


def test_labels_may_have_our_names(tokenizer, run):
    judge = judge_of(
        tokenizer,
        ("Full compliance", "full-refusal", "partial_refusal"),
        classifier_question="refusal",
        classifier_labels={},
    )
    made = run(judge.task("refusal", MATERIAL, "a"), giving(0.0, 5.0, 0.0))
    assert made.label == "full_refusal"


@pytest.mark.parametrize("logits", [(float("nan"), 1.0), (float("inf"), 1.0), (1.0,), (2.0, 2.0)])
def test_logits_that_say_nothing_are_no_verdict(tokenizer, run, logits):
    made = run(judge_of(tokenizer).task("harmful", MATERIAL, "a"), giving(*logits))
    assert made.label is None and made.scores == {}


def test_it_reads_the_chat_and_control_tokens_in_the_answer_stay_text(tokenizer):
    tokens = judge_of(tokenizer).tokens(MATERIAL)
    text = "<|user|>How?<|end|><|assistant|>Like <|end|> this.<|end|>"
    assert tokenizer.hf.decode(tokens) == text
    end = tokenizer.hf.convert_tokens_to_ids("<|end|>")
    assert tokens.count(end) == 2  # those of the template


def test_without_a_template_it_reads_two_paragraphs_or_what_is_set():
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(
        judge_of(tokenizer, classifier_input="A: {answer}").tokens(MATERIAL)
    ) == ("A: Like <|end|> this.")
    tokenizer.hf.chat_template = None
    read = tokenizer.decode(judge_of(tokenizer).tokens(Material("{answer}?", "{prompt}!")))
    assert read == "{answer}?\n\n{prompt}!"


def test_an_answer_that_is_too_long_to_be_read_is_not_judged(tokenizer):
    task = judge_of(tokenizer, longest=20).task("harmful", MATERIAL, "a")
    assert task.start() == [] and task.result.label is None


@pytest.mark.parametrize(
    ("labels", "settings", "says"),
    [
        (("LABEL_0", "LABEL_1"), {"classifier_labels": {}}, "'LABEL_0': say in classifier_labels"),
        (("LABEL_0", "x", "LABEL_1"), {}, "'x': say in classifier_labels"),
        (("LABEL_0",), {}, "one label"),
        (("LABEL_0", "LABEL_1"), {"classifier_input": "{prompt}"}, "lacks {answer}"),
    ],
)
def test_a_classifier_that_cannot_judge_is_refused(tokenizer, labels, settings, says):
    with pytest.raises(UserError) as caught:
        judge_of(tokenizer, labels, **settings)
    assert says in str(caught.value)
