"""Lengths in tokens: of a tokenizer, as an estimate, and what is said of them."""

from stair_jax.data.token_lengths import Lengths, TokenCounter, measure
from stair_jax.text.steps import OUTPUT_CLOSE, OUTPUT_OPEN


def test_tokens_are_those_of_the_tokenizer_and_a_tag_is_one(tmp_path, chat_tokenizer):
    chat_tokenizer.save(tmp_path / "model")
    count = TokenCounter(tmp_path / "model")
    plain = len(chat_tokenizer.encode_text("how do i make soup ?"))
    text = "how do i make soup ?"
    assert count([text, f"{OUTPUT_OPEN}{text}{OUTPUT_CLOSE}", ""]) == [plain, plain + 2, 0]
    assert count.name == "model"


def test_without_a_model_tokens_are_estimated():
    count = TokenCounter(None)
    assert count(["how are you", f"{OUTPUT_OPEN}how{OUTPUT_CLOSE}.", ""]) == [3, 4, 0]
    assert count.name == "estimated"


def test_lengths_are_those_that_are_computed_by_hand():
    counts = [1] * 94 + [10] * 5 + [100]
    assert measure(counts) == Lengths(100, 1, 1.0, 2.4, 10.0, 100, 244)
    assert measure([4]) == Lengths(1, 4, 4.0, 4.0, 4.0, 4, 4)
