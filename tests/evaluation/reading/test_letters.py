"""Letters: what is announced, or said of one letter alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.reading.letters import letter_said


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(A)", "A"),
        ("**B**", "B"),
        ("B) because it is kind", "B"),
        ("The better answer is B.", "B"),
        ("I prefer answer B, as it is kind.", "B"),
        ("Answer A", "A"),
        ("Answer A is rude, and so B is better.\nSo: B", "B"),
        ("Answer A helps. Answer B does not. B is worse", None),
        ("Answer A is rude, B is kind.", None),
        ("(B) is clearly better than (A)", "B"),
        ("A is better", "A"),
        ("A good answer is kind", None),
        ("Answer A and answer B", None),
        ("Both are fine.", None),
        ("C", None),
        ("", None),
    ],
)
def test_a_letter_is_announced_or_the_only_one(answer, letter):
    assert letter_said(answer, "AB") == letter


@given(st.text("ABab .:()is\n", max_size=40))
def test_no_letter_is_said_that_the_answer_does_not_hold(answer):
    letter = letter_said(answer, "AB")
    assert letter is None or letter in answer
