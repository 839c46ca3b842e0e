"""The grammar of structured answers: round trips, and parsers that never crash."""

import sys

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
    st.sampled_from([steps.format_step("a", "b"), steps.format_output("c")]),
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
def test_what_parses_strictly_is_read_alike_tolerantly(text):
    answer = steps.parse_tolerant(text)
    assert answer.final == steps.final_answer(text)
    parts = [answer.final, *(part for step in answer.steps for part in step)]
    assert not any(steps.TAG_PATTERN.search(part) for part in parts)
    assert all(part == part.strip() for part in parts) and all(map(any, answer.steps))
    if steps.is_well_formed(text):
        assert steps.parse(text) == answer


@given(STEPS, PLAIN, st.sampled_from(["", " ", "\n", "\r\n", "\n\n\n\t"]))
def test_space_between_blocks_does_not_matter(parts, final, space):
    blocks = [*(steps.format_step(*part) for part in parts), steps.format_output(final)]
    text = space + space.join(blocks) + space
    assert steps.parse(text) == steps.Answer(tuple(parts), final)
    assert steps.parse_tolerant(text) == steps.Answer(tuple(parts), final)


@given(STEPS, PLAIN, st.data())
def test_one_lost_tag_loses_no_step_and_no_answer(parts, final, data):
    text = steps.format_answer(parts, final)
    lost = data.draw(st.sampled_from([m.span() for m in steps.TAG_PATTERN.finditer(text)]))
    answer = steps.parse_tolerant(text[: lost[0]] + text[lost[1] :])
    assert answer == steps.Answer(tuple(parts), final)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<|Reasoning_step|>no title<|/Reasoning_step|>", [("", "no title")]),
        ("<|Reasoning_step|>Title:\nb<|/Reasoning_step|>", [("", "b")]),
        ("<|Reasoning_step|>Title: a<|/Reasoning_step|>", [("a", "")]),
        ("<|Reasoning_step|>Title: a\nnever closed", [("a", "never closed")]),
        ("Title: a\nnever opened<|/Reasoning_step|> more", [("a", "never opened")]),
        ("<|Reasoning_step|>a<|Reasoning_step|>b<|/Reasoning_step|>", [("", "a"), ("", "b")]),
        ("before<|Reasoning_step|>a<|/Reasoning_step|>between<|Output|>c", [("", "a")]),
        ("<|Output|>c<|/Reasoning_step|>", []),
        ("<|Reasoning_step|> \n<|/Reasoning_step|><|/Reasoning_step|>", []),
        ("plain", []),
    ],
)
def test_steps_of_malformed_answers(text, parts):
    assert list(steps.parse_tolerant(text).steps) == parts


@given(st.lists(st.sampled_from([*steps.TAGS, "<|Out", "put|>", "<|/Reasoning", "_step|>", "a>"])))
def test_tags_are_taken_out_as_by_removing_them_until_none_is_left(pieces):
    text = "".join(pieces)
    expected = text
    while steps.TAG_PATTERN.search(expected):
        expected = steps.TAG_PATTERN.sub("", expected)
    assert steps.without_tags(text) == expected


class Counted(str):
    """A `str` that counts the characters sliced out of it, to test for linear time."""

    cut = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        Counted.cut += len(part)
        return part


class CountedPattern:
    """A pattern that counts the characters that it searches."""

    def __init__(self, pattern):
        self.pattern, self.seen = pattern, 0

    def search(self, text, start=0):
        found = self.pattern.search(text, start)
        self.seen += (found.end() if found else len(text)) - start
        return found

    def __getattr__(self, name):
        def call(*args):
            self.seen += len(args[-1])
            return getattr(self.pattern, name)(*args)

        return call


@pytest.mark.parametrize(
    "half",
    [
        steps.format_step("a", "b") + "\n\n",
        *steps.TAGS,
        " \n",
        steps.FINAL_PREFIX,
        "<|Out",
        steps.OUTPUT_OPEN + "<|Out",
    ],
)
@pytest.mark.parametrize("read", [steps.is_well_formed, steps.parse_tolerant, steps.final_answer])
def test_work_grows_no_faster_than_the_text(monkeypatch, half, read):
    def work(text):
        """Counts the executed lines of Python."""
        lines = 0

        def trace(frame, event, arg):
            nonlocal lines
            lines += event == "line" and frame.f_code.co_filename == steps.__file__
            return trace

        old = sys.gettrace()
        sys.settrace(trace)
        try:
            read(text)
        finally:
            sys.settrace(old)
        return lines

    pattern = CountedPattern(steps.TAG_PATTERN)
    monkeypatch.setattr(steps, "TAG_PATTERN", pattern)
    for closing in (steps.OUTPUT_CLOSE + "put|>" * 400, steps.format_output("c")):
        few = work(Counted(half * 200 + closing[: len(closing) // 2]))
        Counted.cut = pattern.seen = 0
        text = Counted(half * 400 + closing)
        assert work(text) <= 2.2 * few + 50
        assert Counted.cut <= 2 * len(text)
        assert pattern.seen <= 6 * len(text)


@given(STEPS, PLAIN, SOUP)
def test_an_output_block_is_the_only_one_and_the_last_thing(parts, final, more):
    text = steps.format_answer(parts, final)
    assert steps.has_one_output(text) and not steps.breaks_output(text)
    assert steps.has_one_output(text + more) == (not more.strip())
    assert steps.breaks_output(text + more) == bool(more.strip())
    assert not steps.breaks_output(final) and not steps.has_one_output(final)


@given(SOUP)
def test_whatever_is_well_formed_has_one_output(text):
    assert steps.has_one_output(text) or not steps.is_well_formed(text)


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
