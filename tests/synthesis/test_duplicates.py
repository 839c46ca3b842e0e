"""Near-duplicates, by Jaccard indices computed by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.synthesis.duplicates import near_duplicates, shingles, similarity

TEXT = "one two three four five"


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("One, two: THREE four -- five!", 1.0),
        ("one two three four six", 0.5),  # 2 triples of 4
        ("zero one two three four five", 0.75),  # 3 of 4
        ("five four three two one", 0.0),
        ("one two", 0.0),
    ],
)
def test_similarity_is_the_share_of_word_triples(other, expected):
    assert similarity(shingles(TEXT), shingles(other)) == expected


def test_short_texts_are_alike_when_their_words_are():
    assert near_duplicates(["No.", "no", "No no", "", "..."], 0.9) == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_a_text_is_compared_with_those_that_are_kept():
    """The third is like the second, which is left out, and not enough like the first."""
    words = [f"w{number}" for number in range(12)]
    texts = [" ".join(words[start:][:10]) for start in (0, 1, 2)]  # 7/9 and 6/10 alike
    assert near_duplicates(texts, 0.7) == [False, True, False]
    assert near_duplicates(texts, 0.6) == [False, True, True]


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_two_kept_texts_are_alike_and_each_other_one_is_like_a_kept_one(texts):
    flags = near_duplicates(texts, 0.5)
    kept = [shingles(text) for text, is_alike in zip(texts, flags, strict=True) if not is_alike]
    for number, own in enumerate(kept):
        assert all(similarity(own, other) < 0.5 for other in kept[:number])
    for text, is_alike in zip(texts, flags, strict=True):
        assert not is_alike or any(similarity(shingles(text), own) >= 0.5 for own in kept)
