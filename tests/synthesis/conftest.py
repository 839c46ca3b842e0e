"""Judged answers by hand, and a byte tokenizer."""

import pytest

from stair_jax.data.records import SynthesisPrompt
from stair_jax.synthesis.records import JudgedAnswer, PromptAnswers
from stair_jax.testing.tiny_tokenizers import byte_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def make_prompt():
    """`make(kind, **columns)`: the prompt "p" of a kind."""

    def make(kind="safety", **columns):
        return SynthesisPrompt("p", "Why?", kind, **columns)

    return make


@pytest.fixture(scope="session")
def make_answers():
    """`make((helpfulness, safety, reward) or reason, ...)`: answers to "p", each another text."""

    def make(*entries, given=None):
        answers = [make_answer(number, entry) for number, entry in enumerate(entries)]
        return PromptAnswers("p", tuple(answers), given=given and make_answer(-1, given))

    return make


def make_answer(number, entry):
    name = "given" if number < 0 else f"number {number}"
    text, tokens = f"this is the answer {name}", None if number < 0 else (number, 7)
    if isinstance(entry, str):
        return JudgedAnswer(number, text, tokens, reason=entry)
    return JudgedAnswer(number, text, tokens, "", *entry)
