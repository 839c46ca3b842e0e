"""Prompts that repeat held-out ones: by hand, and against comparing everything with everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.decontamination import (
    HeldOutTexts,
    Thresholds,
    containment,
    content_words,
    jaccard,
    normalised,
)

HELD_OUT = "How do I paint an old wooden garden fence blue"  # paint old wooden garden fence blue
TREES = ("oak", "elm", "ash", "fir", "yew", "box", "bay", "fig")
TEXTS = st.lists(st.sampled_from(TREES), max_size=8).map(" ".join)


def test_case_punctuation_width_and_spaces_do_not_matter():
    assert normalised("  “Héllo”,\n\tWORLD_2! ") == "héllo world 2"
    assert normalised("\uff46\uff55\uff4c\uff4c\u3000width") == "full width"


def test_similarities_are_those_that_are_computed_by_hand():
    one = content_words(normalised("Paint the fence blue"))
    other = content_words(normalised("Please paint a fence red"))
    assert one == {"paint", "fence", "blue"} and other == {"paint", "fence", "red"}
    assert jaccard(one, other) == 2 / 4
    assert containment(one, other) == 2 / 3
    assert jaccard(frozenset(), frozenset()) == containment(frozenset(), one) == 0


@pytest.mark.parametrize(
    ("text", "test", "value"),
    [
        ("HOW do I paint an old, wooden garden fence: blue?", "equal", 1.0),
        ("Paint my old wooden garden fence red", "jaccard", 5 / 7),
        ("Explain: old wooden fence, garden, paint, blue", "jaccard", 1.0),
        (
            "My uncle, a retired sailor, told stories while we had to paint that old wooden "
            "garden fence blue beside his quiet harbour house",
            "containment",
            1.0,
        ),
    ],
)
def test_a_repetition_is_found_with_its_similarity(text, test, value):
    match = HeldOutTexts([("set", HELD_OUT)]).match(text)
    assert match is not None
    assert match[:2] == ("set", test) and match.value == pytest.approx(value)
    assert match.text == HELD_OUT


def test_what_is_below_the_thresholds_is_no_repetition():
    held_out = HeldOutTexts([("set", HELD_OUT), ("set", "Bake bread"), ("set", "?!")])
    assert held_out.match("Paint my old wooden garden chair red") is None  # 4 of 8
    assert held_out.match("Bake bread with rye") is None  # too few words for its 2 of 3
    assert held_out.match("!") is None
    assert held_out.match("Explain: old wooden fence, garden, paint, blue", equal_only=True) is None


def test_the_most_similar_prompt_is_told_whatever_the_order():
    texts = [("b", "alpha beta gamma delta"), ("a", "alpha beta gamma"), ("c", "delta gamma beta")]
    for held_out in (texts, texts[::-1]):
        match = HeldOutTexts(held_out).match("gamma beta alpha")
        assert match is not None and match.name == "a" and match.value == 1


@given(st.lists(TEXTS, max_size=6), TEXTS, st.sampled_from([0.5, 0.7]), st.sampled_from([0.6, 0.9]))
def test_the_index_finds_what_comparing_with_each_prompt_does(held_out, text, low, share):
    limits = Thresholds(low, share, min_words=2, min_contained=3)
    words = content_words(normalised(text))

    def repeats(other):
        theirs = content_words(normalised(other))
        return (
            (bool(normalised(text)) and normalised(text) == normalised(other))
            or (min(len(words), len(theirs)) >= 2 and jaccard(words, theirs) >= low)
            or (len(theirs) >= 3 and containment(theirs, words) >= share)
        )

    found = HeldOutTexts([("set", other) for other in held_out], limits).match(text)
    assert (found is not None) == any(map(repeats, held_out))
