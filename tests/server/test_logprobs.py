"""Tokens and their log-probabilities as clients get them."""

from stair_jax.inference.prompt_logps import LogpsCompletion
from stair_jax.server.completion_logprobs import completion_logprobs
from stair_jax.server.logprobs import LEAST, chat_logprobs, token_text


def test_the_bytes_of_tokens_are_those_of_the_text(chat_tokenizer):
    text = "The first é 日本 👩 step"
    ids = chat_tokenizer.encode_text(text)
    entries = chat_logprobs(chat_tokenizer, ids, [-1.0] * len(ids))["content"]
    assert any("\ufffd" in entry["token"] for entry in entries)
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == text


def test_tags_and_special_tokens_show_their_names(chat_tokenizer):
    ids = [chat_tokenizer.tags.output_open, chat_tokenizer.eos_id]
    entries = chat_logprobs(chat_tokenizer, ids, [float("-inf"), 0.0])["content"]
    assert [entry["token"] for entry in entries] == ["<|Output|>", "<|eot_id|>"]
    assert bytes(entries[0]["bytes"]) == b"<|Output|>" and entries[0]["logprob"] == LEAST


def test_the_first_token_of_a_text_has_no_log_probability(chat_tokenizer):
    ids = chat_tokenizer.encode_text("an analysis")
    top = tuple(((ids[0], -0.5), (ids[-1], -1.0)) for _ in ids[1:])
    scored = LogpsCompletion((), tuple(-2.0 for _ in ids[1:]), top)
    found = completion_logprobs(chat_tokenizer, ids, scored, 1)
    assert found["token_logprobs"] == [None, *([-2.0] * (len(ids) - 1))]
    first, own = token_text(chat_tokenizer, ids[0]), token_text(chat_tokenizer, ids[1])
    assert found["top_logprobs"][1] == {first: -0.5, own: -2.0}
    assert "".join(found["tokens"]) == "an analysis" and found["text_offset"][:2] == [0, len(first)]


def test_of_tokens_with_the_same_text_the_likeliest_is_told(chat_tokenizer):
    halves = chat_tokenizer.encode_text("é")
    assert len(halves) == 2
    top = (((halves[0], -0.5), (halves[1], -3.0)),)
    found = completion_logprobs(
        chat_tokenizer, [5, halves[1]], LogpsCompletion((), (-3.0,), top), 2
    )
    assert found["top_logprobs"][1] == {"\ufffd": -0.5}


def test_tokens_behind_a_stop_text_are_left_out(chat_tokenizer):
    ids = chat_tokenizer.encode_text("first step")
    scored = LogpsCompletion((), tuple(-1.0 for _ in ids), tuple(() for _ in ids))
    found = completion_logprobs(chat_tokenizer, ids, scored, 0, length=3)
    assert all(offset < 3 for offset in found["text_offset"])
    assert len(set(map(len, found.values()))) == 1 and len(found["tokens"]) < len(ids)
