"""Suffixes stay the same token ids when they are sent as text."""

import random

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.attacks.suffixes import SuffixSpace, printable_ids
from stair_jax.evaluation.target import ChatTokens
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer, byte_tokenizer, word_tokenizer
from stair_jax.text.chat import encode_prompt

TOKENIZERS = {"bpe": bpe_tokenizer, "byte": byte_tokenizer, "word": word_tokenizer}
PROMPT = "Tell me a problem!!"


def space_of(tokenizer, length=6, prompt=PROMPT, seed=0):
    tokens = ChatTokens(
        tokenizer,
        lambda messages: tuple(encode_prompt(tokenizer, messages[-1]["content"])),
        lambda text, place: ((), ()),
    )
    chat = [{"role": "user", "content": prompt}]
    return tokens, SuffixSpace(tokens, chat, length, random.Random(seed))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_first_suffix_stands_behind_the_prompt(name):
    tokens, space = space_of(TOKENIZERS[name]())
    assert len(space.start) == 6 and space.is_kept(space.start)
    (message,) = space.messages(space.start)
    assert message["content"].startswith(PROMPT) and message["role"] == "user"
    assert tokens.encode([message]) == (*space.before, *space.start, *space.after)
    plain = tokens.encode([{"content": PROMPT}])
    assert plain[-len(space.after) :] == space.after


def test_suffixes_that_the_tokenizer_reads_otherwise_are_not_kept(chat_tokenizer):
    tokens, space = space_of(chat_tokenizer, length=2)
    texts = {chat_tokenizer.decode([id]): id for id in space.allowed}
    pairs = [
        text for text in texts if len(text) == 2 and text.isalpha() and set(text) <= set(texts)
    ]
    assert pairs  # pieces that the tokenizer makes of two letters
    for one, other in pairs:
        assert not space.is_kept((texts[one], texts[other]))
    draw, kept = random.Random(1), 0
    for _ in range(200):
        ids = (draw.choice(space.allowed), draw.choice(space.allowed))
        text = space.messages(ids)
        is_same = tokens.encode(text) == (*space.before, *ids, *space.after)
        assert space.is_kept(ids) == is_same
        kept += is_same
    assert 0 < kept < 200


def test_white_space_that_the_template_strips_is_not_kept():
    tokenizer = byte_tokenizer()
    _, space = space_of(tokenizer, length=2)
    (letter,), (blank,) = tokenizer.encode_text("x"), tokenizer.encode_text(" ")
    assert space.is_kept((blank, letter)) and not space.is_kept((letter, blank))


def test_only_tokens_of_printable_text_are_allowed(chat_tokenizer):
    allowed = printable_ids(chat_tokenizer)
    texts = [chat_tokenizer.decode([id]) for id in allowed]
    assert "!" in texts and "the" in "".join(texts) and all(text.isprintable() for text in texts)
    special = {*chat_tokenizer.hf.all_special_ids, *vars(chat_tokenizer.tags).values()}
    assert not special & set(allowed)


def test_a_template_that_keeps_no_suffix_is_named(chat_tokenizer):
    tokens = ChatTokens(chat_tokenizer, lambda messages: (1, 2, 3), lambda text, place: ((), ()))
    chat = [{"role": "user", "content": "why?"}]
    with pytest.raises(UserError, match="no suffix of 4 tokens stays the same as text"):
        SuffixSpace(tokens, chat, 4, random.Random(0))
