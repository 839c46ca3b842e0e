"""Codes and their reading: inverse where they promise it, and harmless to plain answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.text.encodings import (
    disemvowel,
    leetspeak,
    read_base64,
    read_rot13,
    rot13,
    to_base64,
)

SENTENCES = st.lists(
    st.sampled_from(
        [
            "I cannot help you with that.",
            "Sure, here is how you do it: open the lid, and wait.",
            "The answer is 42, as far as I know.",
            "No.",
        ]
    ),
    min_size=1,
    max_size=4,
).map(" ".join)


@given(st.text())
def test_rot13_is_its_own_inverse(text):
    assert rot13(rot13(text)) == text


@given(SENTENCES)
def test_an_english_answer_is_read_the_same_in_rot13_and_in_plain_text(text):
    assert read_rot13(rot13(text)) == read_rot13(text) == text


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_base64_is_read_back(text):
    assert read_base64(to_base64(text)) == text


@given(st.text(st.characters(codec="utf-8"), min_size=12), st.integers(60, 100))
def test_base64_in_lines_is_read_back(text, width):
    code = to_base64(text)
    lines = [code[start : start + width] for start in range(0, len(code), width)]
    assert read_base64("\n".join(lines)) == text


@given(SENTENCES)
def test_a_plain_answer_is_no_base64(text):
    assert read_base64(text) == text


@pytest.mark.parametrize("width", [7, 76])
@pytest.mark.parametrize("cut", range(20, 45))
def test_base64_that_was_cut_off_is_read_up_to_there(cut, width):
    """Also in the middle of a character, be it at the end of four digits or of a line."""
    text = "Take a cup of tea , é, and é, sit."
    code = to_base64(text)[:cut]
    found = read_base64("\n".join(code[start : start + width] for start in range(0, cut, width)))
    assert text.startswith(found) and len(found) >= cut * 3 // 4 - 4


def test_runs_of_base64_inside_of_an_answer_are_read_in_their_place():
    code = to_base64("open the lid, and wait")
    assert read_base64(f"Here it is:\n```\n{code}\n```") == (
        "Here it is:\n```\nopen the lid, and wait\n```"
    )


def test_a_long_word_that_is_no_base64_of_a_text_stays():
    assert read_base64("Incomprehensibilities are rare.") == "Incomprehensibilities are rare."


def test_vowels_are_taken_out_and_nothing_else():
    assert disemvowel("Can you explain how to write a deceptive Email?") == (
        "Cn y xpln hw t wrt  dcptv ml?"
    )


def test_leetspeak_writes_digits_for_letters_in_both_cases():
    assert leetspeak("Table, SOIL") == "74b13, 5011"
