"""An answer that comes in pieces reads as the whole one does."""

import itertools
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stair_jax.text import steps
from stair_jax.text.answer_stream import AnswerParts, TokenText

ANSWER = steps.format_answer([("Look", "It is a list.\n\n- one\n- two"), ("Sum", "1 < 2")], "three")
WORD = st.sampled_from(
    [
        *steps.TAGS,
        "Title:",
        "Title: A\n",
        "Final Answer:",
        "x",
        " ",
        "\n",
        "<|",
        "<",
        "|>",
        "Out",
        "é",
    ]
)
TEXT = st.lists(WORD, max_size=14).map("".join)


def cut(whole, places):
    """A sequence in pieces."""
    bounds = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(bounds)]


def read(pieces):
    """[kind, text] of each block, with its pieces joined."""
    parts, blocks = AnswerParts(), []
    found = [part for piece in pieces for part in parts.add(piece)]
    for kind, text in [*found, *parts.end()]:
        if blocks and blocks[-1][0] == kind and kind in ("step", "final", "outside"):
            blocks[-1][1] += text
        else:
            blocks.append([kind, text])
    return blocks


PLACES = st.lists(st.integers(0, 200), max_size=6)


@given(text=st.text(max_size=20), places=PLACES)
def test_pieces_of_tokens_are_the_text_of_all_of_them(chat_tokenizer, text, places):
    """Also where a piece ends inside of a character of several bytes."""
    ids = chat_tokenizer.encode_answer(text + ANSWER)
    pieces = TokenText(chat_tokenizer)
    shown = [pieces.add(ids_of_piece) for ids_of_piece in cut(ids, places)]
    assert "".join(shown) + pieces.end() == chat_tokenizer.decode(ids)


@given(text=st.text(min_size=200, max_size=400), seed=st.integers(0, 99))
def test_pieces_of_many_tokens_are_the_text_of_all_of_them(chat_tokenizer, text, seed):
    """Of texts, and of ids that no text has: characters that are cut off, and hidden tokens."""
    drawn = random.Random(seed).choices(range(chat_tokenizer.vocab_size), k=400)
    for ids in (chat_tokenizer.encode_answer(text + ANSWER), drawn):
        pieces = TokenText(chat_tokenizer)
        shown = [pieces.add([id]) for id in ids]
        assert "".join(shown) + pieces.end() == chat_tokenizer.decode(ids)


@given(text=st.text(max_size=150), places=st.lists(st.integers(0, 2000), max_size=60))
def test_a_long_text_comes_whole_with_the_tokens_of_all_families(family, text, places):
    ids = family.encode_text(text * 3)
    pieces = TokenText(family)
    shown = [pieces.add(ids_of_piece) for ids_of_piece in cut(ids, places)]
    assert "".join(shown) + pieces.end() == family.decode(ids)


def test_a_piece_costs_the_same_however_long_the_answer_is(chat_tokenizer, monkeypatch):
    lengths = []
    decode = chat_tokenizer.decode
    monkeypatch.setattr(
        chat_tokenizer, "decode", lambda ids: lengths.append(len(ids)) or decode(ids)
    )
    pieces = TokenText(chat_tokenizer)
    for _ in range(1000):
        pieces.add(chat_tokenizer.encode_text("It is a sum"))
    assert max(lengths) < 100


def test_a_character_is_shown_once_it_is_whole(chat_tokenizer):
    pieces = TokenText(chat_tokenizer)
    ids = chat_tokenizer.encode_text("é")
    assert len(ids) == 2
    assert [pieces.add([id]) for id in ids] == ["", "é"]
    assert pieces.add(ids[:1]) == "" and pieces.end() == "\ufffd"


@given(text=TEXT, places=PLACES)
def test_parts_do_not_depend_on_where_the_text_is_cut(text, places):
    assert read(cut(text, places)) == read([text])


@given(text=TEXT)
def test_the_last_final_answer_that_is_shown_is_the_one_that_is_judged(text):
    last = text.rpartition(steps.OUTPUT_OPEN)[2]
    tag = steps.TAG_PATTERN.search(last)
    assume(steps.OUTPUT_OPEN in text and (tag is None or tag.group() == steps.OUTPUT_CLOSE))
    finals = [said for kind, said in read([text]) if kind == "final"]
    judged = steps.final_answer(text)
    assert judged == "" or finals[-1] == judged


def test_a_whole_answer_has_the_parts_that_the_parser_reads():
    parsed = steps.parse(ANSWER)
    expected = []
    for title, text in parsed.steps:
        expected += [["title", title], ["step", text], ["end", ""]]
    assert read(list(ANSWER)) == [*expected, ["final", parsed.final], ["end", ""]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello <b> <|x|> ", [["outside", "Hello <b> <|x|>"]]),
        ("<|Reasoning_step|>no title", [["title", ""], ["step", "no title"], ["end", ""]]),
        ("<|Reasoning_step|>Title: A", [["title", "A"], ["end", ""]]),
        ("<|Reasoning_step|> <|/Reasoning_step|>", [["end", ""]]),
        ("<|Output|>Final Answer: 4", [["final", "4"], ["end", ""]]),
        ("<|Output|>4<|/Output|>more", [["final", "4"], ["end", ""], ["outside", "more"]]),
    ],
)
def test_malformed_answers_are_shown_as_far_as_they_go(text, expected):
    assert read([text]) == expected
