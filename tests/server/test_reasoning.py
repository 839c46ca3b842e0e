"""A structured answer as reasoning and content, whole or as it is sampled."""

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.server.reasoning import MODES, Delta, Reasoning, split
from stair_jax.text import steps

STEPS = [("Look", "It is a list.\n\n- one\n- two"), ("Sum", "1 < 2")]
ANSWER = steps.format_answer(STEPS, "three")
REASONING = "Title: Look\nIt is a list.\n\n- one\n- two\n\nTitle: Sum\n1 < 2"
WORD = st.sampled_from(
    [*steps.TAGS, "Title: A\n", "Final", " Answer:", "x", " ", "\n", "<|", "<", "|>", "Out", "é"]
)
TEXT = st.lists(WORD, max_size=14).map("".join)
PLACES = st.lists(st.integers(0, 200), max_size=6)


def cut(text, places):
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


def joined(pieces, **options):
    reader = Reasoning(**options)
    deltas = [*map(reader.add, pieces), reader.end()]
    return Delta(*("".join(parts) for parts in zip(*deltas, strict=True)))


def test_steps_are_reasoning_and_the_output_block_is_content():
    assert split(ANSWER) == Delta(REASONING, "three")


def test_hidden_reasoning_leaves_the_content_alone():
    assert split(ANSWER, "hidden") == Delta("", "three")


def test_raw_text_is_content_with_its_tags():
    assert split(ANSWER, "raw") == Delta("", ANSWER)


def test_all_that_a_model_without_tags_says_is_content():
    assert split(ANSWER, is_structured=False) == Delta("", ANSWER)


def test_what_goes_on_with_a_copy_leaves_the_first_as_it_is():
    first = Reasoning()
    first.add("<|Reasoning_step|>a")
    second = copy.copy(first)
    second.add(" b<|/Reasoning_step|><|Output|>c")
    assert first.add(" d") == Delta(" d")


def test_an_answer_cut_off_inside_of_a_step_has_no_content():
    whole, text = ANSWER.partition("- two")[0], "Title: Look\nIt is a list.\n\n- one"
    assert split(whole) == Delta(text, "")


@pytest.mark.parametrize("end", ["", "Final Ans", "Final Answer:", "Final Answer: th"])
def test_an_answer_cut_off_inside_of_its_output_has_what_was_said_of_it(end):
    content = {"Final Ans": "Final Ans", "Final Answer: th": "th"}.get(end, "")
    assert split(f"{steps.format_step('A', 'b')}{steps.OUTPUT_OPEN}{end}").content == content


def test_an_answer_without_tags_is_content():
    assert split("I cannot <say> that. ") == Delta("", "I cannot <say> that.")


def test_text_behind_the_steps_is_content_where_no_output_follows():
    step = steps.format_step("A", "b")
    assert split(f"{step}so it is") == Delta("Title: A\nb", "so it is")
    output = steps.format_output("c")
    assert split(f"{step}so it is{output}") == Delta("Title: A\nb\n\nso it is", "c")


def test_a_step_is_shown_before_its_block_is_closed():
    reader = Reasoning()
    assert reader.add(f"{steps.REASONING_OPEN}Title: A\none") == Delta("Title: A\none", "")
    assert reader.add(" two\n<|/Reas") == Delta(" two", "")
    assert reader.add(f"oning_step|>\n\n{steps.OUTPUT_OPEN}Final Answer:") == Delta()
    assert reader.add(" yes") == Delta("", "yes")


def test_what_goes_on_with_a_given_beginning_is_read_in_its_block():
    reader = Reasoning()
    reader.add(f"{steps.format_step('A', 'b')}{steps.OUTPUT_OPEN}Final Answer:")
    assert reader.add(" yes") == Delta("", "yes")


@given(text=TEXT, places=PLACES, mode=st.sampled_from(MODES), is_structured=st.booleans())
def test_where_the_text_is_cut_changes_nothing(text, places, mode, is_structured):
    whole = split(text, mode, is_structured)
    assert joined(cut(text, places), mode=mode, is_structured=is_structured) == whole


@given(
    written=st.lists(
        st.tuples(st.just("A"), st.text("ab <\n", min_size=1)), min_size=1, max_size=3
    ),
    final=st.text("ab <\n"),
    length=st.integers(0, 400),
)
def test_content_is_the_answer_that_is_judged_wherever_it_is_cut_off(written, final, length):
    text = steps.format_answer(written, final)[:length]
    assert split(text).content == steps.final_answer(text)


@given(text=TEXT)
def test_no_tag_is_shown(text):
    assert not any(steps.TAG_PATTERN.search(part) for part in split(text))
