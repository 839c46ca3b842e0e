"""The grammar of structured answers: what is written can be read, and nothing crashes a reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.text import steps

PLAIN = (
    st.text(min_size=1, max_size=30)
    .map(str.strip)
    .filter(lambda text: text and not steps.TAG_PATTERN.search(text))
)
TITLE = PLAIN.filter(lambda text: "\n" not in text)
STEPS = st.lists(st.tuples(TITLE, PLAIN), min_size=1, max_size=4)
PIECE = st.one_of(
    st.sampled_from([*steps.TAGS, "Title: a\n", "Final Answer: b", "\n\n", "<|Out", "put|>"]),
    st.text(),
)
SOUP = st.lists(PIECE, max_size=12).map("".join)


def test_the_written_form():
    assert steps.format_answer([("Look", "It is a list.")], "three") == (
        "<|Reasoning_step|>Title: Look\nIt is a list.\n<|/Reasoning_step|>\n\n"
        "<|Output|>Final Answer: three<|/Output|>"
    )


@given(STEPS, PLAIN)
def test_parse_gives_back_what_was_formatted(parts, final):
    text = steps.format_answer(parts, final)
    assert steps.parse(text) == steps.Answer(tuple(parts), final)
    assert steps.is_well_formed(text)
    assert steps.final_answer(text) == final


@given(SOUP)
def test_any_string_parses_or_is_a_format_error(text):
    try:
        answer = steps.parse(text)
    except steps.FormatError as error:
        assert str(error)
        assert not steps.is_well_formed(text)
    else:
        assert answer.steps and answer.final
        assert steps.parse(steps.format_answer(answer.steps, answer.final)) == answer


@given(SOUP)
def test_final_answer_reads_anything_and_shows_no_tag(text):
    assert not steps.TAG_PATTERN.search(steps.final_answer(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no reasoning block"),
        ("<|Output|>Final Answer: a<|/Output|>", "no reasoning block"),
        ("<|Reasoning_step|>Title: a\nb<|/Reasoning_step|>", "no output block"),
        ("<|Reasoning_step|>Title: a\nb", "followed by the end"),
        ("<|Reasoning_step|>Title: a\nb<|Output|>", "followed by <|Output|>"),
        ("<|Reasoning_step|>b\nc<|/Reasoning_step|>", "no title"),
        ("<|Reasoning_step|>Title:\nc<|/Reasoning_step|>", "no title"),
        ("<|Reasoning_step|>Title: a\n<|/Reasoning_step|>", "no text"),
        ("Hello", "outside of a block at character 0"),
    ],
)
def test_what_is_wrong_is_named(text, reason):
    with pytest.raises(steps.FormatError, match=reason.replace("|", r"\|")):
        steps.parse(text)


def test_nothing_may_follow_the_output_block():
    text = steps.format_answer([("a", "b")], "c")
    with pytest.raises(steps.FormatError, match="after the output block"):
        steps.parse(text + " more")
    with pytest.raises(steps.FormatError, match="after the output block"):
        steps.parse(text + text)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("just an answer", "just an answer"),
        ("<|Reasoning_step|>Title: a\nb<|/Reasoning_step|> so c", "so c"),
        ("<|Reasoning_step|>Title: a\nnever closed", ""),
        ("<|Reasoning_step|>a<|/Reasoning_step|><|Output|>Final Answer: cut off", "cut off"),
        ("<|Output|>first<|/Output|><|Output|>Final Answer: last<|/Output|>", "last"),
        ("<|Out<|/Output|>put|>a", "a"),
        ("", ""),
    ],
)
def test_final_answer_of_malformed_answers(text, final):
    assert steps.final_answer(text) == final


@given(st.lists(st.integers(0, 6), max_size=30))
def test_split_steps_cuts_after_closing_tags_and_loses_nothing(ids):
    class Closing:
        reasoning_close, output_close = 1, 3

    pieces = steps.split_steps(ids, Closing)
    assert [token for piece in pieces for token in piece] == ids
    assert all(piece and not {1, 3} & set(piece[:-1]) for piece in pieces)
    assert all(piece[-1] in (1, 3) for piece in pieces[:-1])
