"""Where a judge's reply could have been stopped, and what that would have got wrong."""

from types import SimpleNamespace

import pytest

from benchmarks.judge_replies import conclusion_end, measure_replies
from stair_jax.decoding.requests import Completion
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.testing.tiny_tokenizers import byte_tokenizer

SETTINGS = JudgeSettings(helpfulness_template="{prompt} {answer}")  # ratings from 1 to 5


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def reply(tokenizer, text, finish="stop"):
    tokens = (*tokenizer.encode_text(text), tokenizer.eos_id)
    return Completion((0, "policy", "helpfulness"), tokens, (-1.0,) * len(tokens), finish)


def test_the_conclusion_ends_with_its_label(tokenizer):
    head = "It is good.\nConclusion: [4]"  # a byte a token
    tokens = tokenizer.encode_text(head + " \nAnd more.")
    assert conclusion_end("helpfulness", tokens, tokenizer, SETTINGS) == (len(head), 0.5)
    assert conclusion_end("helpfulness", tokens[: len(head) - 1], tokenizer, SETTINGS) is None


def test_what_stands_behind_it_is_counted_and_so_is_what_it_changes(tokenizer):
    head = "Conclusion: [4]"
    replies = [
        reply(tokenizer, head),
        reply(tokenizer, head + "\nConclusion: [2]"),
        reply(tokenizer, head, "length"),
        reply(tokenizer, "I cannot say."),
    ]
    judge = SimpleNamespace(tokenizer=tokenizer, settings=SETTINGS)
    found = measure_replies("helpfulness", replies, judge)
    total = 4 + 3 * 15 + 16 + 13
    assert found["replies"] == 4 and found["tokens"] == total / 4
    assert found["concluded"] == 3 / 4
    assert found["behind"] == (1 + 17 + 1) / total
    assert found["changed"] == 2 / 3
