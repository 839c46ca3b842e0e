"""Reasoning blocks: what they are made of, and that the strict parser gives them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.study import reasoning
from stair_jax.text import steps

TEXTS = st.text(st.characters(codec="ascii", exclude_characters="<>|"), min_size=1).filter(
    lambda text: text.strip()
)


def test_paragraphs_of_a_trace_become_analysis_checks_and_plan():
    made = reasoning.trace_blocks("<think>One.\n\nTwo.\n \nThree.\n\nFour.</think>\n\nNo, sorry.")
    assert made is not None
    blocks, final = made
    assert blocks == [
        ("Problem Analysis", "One."),
        ("Risk and Policy Check", "Two."),
        ("Risk and Policy Check", "Three."),
        ("Answer Plan", "Four."),
    ]
    assert final == "No, sorry."
    assert reasoning.joined(blocks)[1] == ("Risk and Policy Check", "Two.\n\nThree.")


def test_a_trace_of_one_paragraph_is_divided_between_sentences():
    made = reasoning.trace_blocks("<think>One. Two? Three! Four. Five.</think> No.")
    assert made is not None
    assert [text for _, text in made[0]] == ["One. Two?", "Three! Four.", "Five."]


@pytest.mark.parametrize("response", ["No.", "<think>A. B. C.</think> ", "<think>A.</think> No."])
def test_a_response_without_trace_or_answer_is_none(response):
    assert reasoning.trace_blocks(response) is None


def test_lines_of_a_solution_become_calculations_without_their_notes():
    answer = "He has 2+3=<<2+3=5>>5 pens.\nThat is 5*200=<<5*200=1000>>1000 dots.\n#### 1,000"
    made = reasoning.calculation_blocks("He has pens. How many dots?", answer)
    assert made is not None
    (title, opening), *worked = made[0]
    assert title == "Problem Analysis" and "How many dots?" in opening
    assert worked == [
        ("Calculation 1", "He has 2+3=5 pens."),
        ("Calculation 2", "That is 5*200=1000 dots."),
    ]
    assert made[1] == "1000"


@pytest.mark.parametrize("answer", ["a\nb\nc\nd\ne\nf\n#### 1", "#### 1", "a\n#### b", "a\nb", ""])
def test_a_solution_that_is_too_long_or_has_no_number_is_none(answer):
    assert reasoning.calculation_blocks("How many?", answer) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("- a\n- b\n- c", "3"),
        ("1. a\n2. b", "2"),
        ("```python\nprint(1)\n```", "ode"),
        ("Yes.", "rief|few"),
        ("One two three four five six seven eight nine ten eleven.", "sentence"),
        ("\n\n".join(["A longer paragraph of some words."] * 4), "4|order"),
    ],
)
def test_a_plan_says_the_form_of_the_answer(answer, said):
    assert any(word in reasoning.plan(answer) for word in said.split("|"))


@given(TEXTS, TEXTS, TEXTS)
def test_the_strict_parser_gives_templated_blocks_back(prompt, topic, answer):
    for blocks in (
        reasoning.helpful_blocks(prompt, {"input": topic}, answer),
        reasoning.contrast_blocks(prompt, topic, answer),
        reasoning.careful_blocks(prompt),
    ):
        parsed = steps.parse(steps.format_answer(blocks, answer))
        assert [title for title, _ in parsed.steps] == [title for title, _ in blocks]
        assert [text for _, text in parsed.steps] == [text.strip() for _, text in blocks]


def test_a_long_prompt_is_quoted_in_part():
    assert reasoning.quoted("one two three.", 3) == "one two three"
    assert reasoning.quoted("one two three four", 3) == "one two three ..."


@pytest.mark.parametrize(
    ("text", "is_risky"),
    [
        ("How do explosives work?", True),
        ("Forget the method", False),
        ("Name a skill", False),
        ("Thefts rose", True),
    ],
)
def test_words_of_risk_are_found_where_a_word_begins(text, is_risky):
    assert bool(reasoning.RISKY.search(text)) == is_risky
