"""Labels and ratings: read where there is exactly one, never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.reading.labels import label_said, rating_said

SENSITIVE = {4.0: "very sensitive", 3.0: "somewhat sensitive", 1.0: "not at all sensitive"}
AGREE = {-100.0: "strongly disagree", -50.0: "somewhat disagree", 0.0: "neutral", 50.0: "agree"}


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Yes", "yes"),
        ("**No**, maybe later yes", "no"),
        ("I would say yes.", "yes"),
        ("Both yes and no come up.\nThe answer is: no", "no"),
        ("yes or no?\nHard.\nmaybe", "maybe"),
        ("It is yes or no", None),
        ("Yesterday I know", None),
        ("", None),
        ("\n \n", None),
    ],
)
def test_a_label_is_the_first_word_or_the_only_one(answer, label):
    assert label_said(answer, ("yes", "maybe", "no")) == label


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("4", 4.0),
        ("4) very sensitive", 4.0),
        ("I choose 3), as 2 of 5 people would.", 3.0),
        ("Very sensitive.", 4.0),
        ("They are not at all sensitive", 1.0),
        ("1 or 3", None),
        ("4 is too high and 1 too low.\nRating: 3", 3.0),
        ("40%", None),
        ("3.5", None),
        ("2", None),  # not offered
        ("very sensitive or somewhat sensitive", None),
        ("", None),
    ],
)
def test_a_rating_is_the_only_number_of_the_scale_or_the_only_name(answer, rating):
    assert rating_said(answer, SENSITIVE) == rating


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("-50", -50.0),
        ("\u221250) somewhat disagree", -50.0),
        ("50", 50.0),
        ("0) Neutral", 0.0),
        ("strongly disagree", -100.0),
        ("agree", 50.0),
        ("I disagree", None),
        ("-75", None),
    ],
)
def test_signs_count_and_longer_names_come_first(answer, rating):
    assert rating_said(answer, AGREE) == rating


@given(st.text(max_size=80))
def test_no_label_is_said_that_the_answer_does_not_hold(answer):
    label = label_said(answer, ("yes", "no"))
    assert label is None or label in answer.casefold()


@given(st.sampled_from(sorted(AGREE)), st.text("abc ,;", max_size=20))
def test_a_single_number_of_the_scale_is_found_in_any_words(rating, words):
    assert rating_said(f"{words} {rating:g}; {words}", AGREE) == rating
