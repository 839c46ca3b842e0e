"""Long texts are encoded piece by piece, with the ids of the whole."""

import random

import pytest

from stair_jax.text import pieces

# Places where a split into words is decided by what stands around it.
_PARTS = (
    *("word", "Word's", "it'll", "I'D", "don't ", "e\u0301", "\u0301", "\u00e9t\u00e9", "\u7684"),
    *(" ", "  ", "\n", "\n\n", " \n", "\t", "\r\n", "\u00a0", "\u2028", "7", "1234", "?", "(", "."),
    *("<|im_end|>", "</s>", "step \n", "a\n ", "b  c", "\U0001f600", "\ud800", "_", "'", "\u017f "),
)


def _texts():
    rng = random.Random(0)
    for count in (50, 200, 800):
        for _ in range(8):
            yield "".join(rng.choice(_PARTS) for _ in range(count))
            yield "a b\n" * count + rng.choice(_PARTS)


def test_a_text_has_the_ids_that_it_has_in_one_piece(family):
    for text in _texts():
        whole = family._plain.encode(pieces_free(text), add_special_tokens=False).ids
        assert family.encode_text(text) == whole
        assert family.encode_text(text) == whole  # with all pieces remembered


def pieces_free(text):
    """The text as the tokenizer's own library takes it."""
    return text.replace("\ud800", "\ufffd")


def test_only_tokenizers_that_split_a_text_into_words_like_this_are_cut(family):
    byte_level = not any(name in family.hf.name_or_path for name in ("llama2", "stories"))
    assert pieces.may_cut(family._plain) == byte_level


def test_texts_that_begin_alike_have_the_same_first_pieces():
    shared = "the quick brown fox jumps over the lazy dog\n" * 30
    first, second = (pieces.cut(shared + answer) for answer in ("yes", "no, never"))
    assert "".join(first) == shared + "yes"
    assert first[:-1] == second[:-1] and len(first) > 4


@pytest.mark.parametrize("text", ["", "a", "a" * 1000, "7 " * 1000])
def test_a_text_without_a_place_to_cut_is_one_piece(text):
    assert pieces.cut(text) == [text]
