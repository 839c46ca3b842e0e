"""A small run of the soak test of fuzzed text, and the faults that it finds."""

import pytest

from soak import growing, text
from soak.growing import how_it_grows
from stair_jax.text import steps
from stair_jax.text.tokenizer import Tokenizer


def test_fuzzed_text_gives_no_control_token_and_crashes_no_parser(tmp_path):
    result = text.run(600, 0, tmp_path, longest=0)
    assert result.failures == []
    assert sum(result.counts.values()) == 600
    assert result.counts["qwen3"] >= 40 and result.counts["pocket"] >= 40


def with_control_tokens(tokenizer, text):
    """Encodes control tokens in a text as control tokens."""
    return tokenizer.hf.encode(text.encode(errors="replace").decode(), add_special_tokens=False)


def without_spaces(tokenizer, text):
    """Drops space at both ends."""
    return tokenizer._plain.encode(text.strip().encode(errors="replace").decode()).ids


@pytest.mark.parametrize(
    ("encode", "said"),
    [
        (with_control_tokens, "encode_text gives a control token"),
        (with_control_tokens, "the text of a prompt changes its control tokens"),
        (with_control_tokens, "encode_answer gives a control token that is not a tag"),
        (without_spaces, "decode(encode_text(text)) differs from the text"),
    ],
)
def test_a_faulty_tokenizer_is_found(monkeypatch, tmp_path, encode, said):
    monkeypatch.setattr(Tokenizer, "encode_text", encode)
    result = text.run(100, 0, tmp_path, longest=0)
    assert any(said in failure.what for failure in result.failures)


def test_a_parser_that_crashes_is_found_with_a_seed_that_reproduces_it(monkeypatch, tmp_path):
    monkeypatch.setitem(text._PARSERS, "brittle", lambda text: text.index("<|Output|>"))
    first = text.run(40, 0, tmp_path, longest=0).failures[0]
    assert first.what == "brittle: ValueError: substring not found"
    seed = int(first.reproduce.split("--seed ")[1].split()[0])
    assert text.run(1, seed, tmp_path, longest=0).failures == [first]


@pytest.mark.parametrize(
    ("power", "is_linear", "longest"), [(1, True, 2**20), (2, False, 2**14), (1.5, True, 2**20)]
)
def test_superlinear_time_is_found(monkeypatch, power, is_linear, longest):
    """A quadratic function is not timed on longer texts, which would take hours."""
    monkeypatch.setattr(growing, "_seconds", lambda work, text: 1e-9 * len(text) ** power)
    grows = how_it_grows(lambda length: "a" * length, len, 2**20)
    assert (grows.is_linear, grows.length) == (is_linear, longest)


def test_a_slow_parser_is_a_failure(monkeypatch, tmp_path):
    def seconds(work, text):
        return 1e-9 * len(text) ** (2 if work is steps.parse_tolerant else 1)

    monkeypatch.setattr(growing, "_seconds", seconds)
    monkeypatch.setattr(text, "_LONGEST_ENCODED", 2**12)
    result = text.run(1, 0, tmp_path, longest=2**16)
    assert {failure.what.split()[0] for failure in result.failures} == {"parse_tolerant"}
