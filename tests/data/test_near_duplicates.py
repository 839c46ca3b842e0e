"""Repeats within a file: by hand, against comparing all with all, and how much is compared."""

import random

import pytest

from stair_jax.data import near_duplicates
from stair_jax.data.decontamination import content_words, jaccard, normalised
from stair_jax.data.near_duplicates import BANDS, Repeat, find_repeats

WORDS = [f"word{number}" for number in range(400)]


def test_equal_and_near_texts_are_found_with_the_first_of_them():
    texts = [
        "Paint the old wooden garden fence blue",
        "Bake bread with rye flour and yeast",
        "paint the old, wooden garden fence: BLUE!",
        "Paint an old wooden garden fence red",
        "",
        "",
        "Paint",
    ]
    repeats = find_repeats(texts)
    assert list(repeats) == [2, 3]
    assert repeats[2] == Repeat(0, 1.0, True)
    assert repeats[3].first == 0 and repeats[3].value == pytest.approx(5 / 7)
    assert find_repeats(texts, least=0.8).keys() == {2}


def test_an_equal_copy_of_a_near_text_is_told_with_the_text_that_is_kept():
    texts = ["red oak tree by lake", "red oak tree by lake shore", "Red oak tree, by lake shore"]
    first, second = find_repeats(texts, min_words=2).values()
    assert first == second == Repeat(0, 4 / 5, False)


def test_few_words_are_compared_by_equality_alone():
    assert find_repeats(["blue fence", "fence blue"]) == {}
    assert find_repeats(["blue fence", "fence blue"], min_words=2).keys() == {1}


def test_what_is_found_is_what_comparing_all_with_all_finds():
    rng = random.Random(0)
    texts = []
    for _ in range(150):
        text = rng.sample(WORDS, 10)
        texts += [" ".join(text), " ".join([*text[:9], rng.choice(WORDS)])]  # 9 / 11 alike
    rng.shuffle(texts)
    words = [content_words(normalised(text)) for text in texts]
    kept, expected = [], {}
    for number, found in enumerate(words):
        near = [first for first in kept if jaccard(found, words[first]) >= 0.7]
        if near:
            expected[number] = near[0]
        else:
            kept.append(number)
    repeats = find_repeats(texts)
    assert len(expected) > 100
    assert {number: repeat.first for number, repeat in repeats.items()} == expected


def test_a_template_is_compared_with_a_few_texts_alone(monkeypatch):
    calls = []

    def counted(one, other):
        calls.append(1)
        return jaccard(one, other)

    monkeypatch.setattr(near_duplicates, "jaccard", counted)
    texts = [f"tell {word} {word}x {word}y an old tale of oak elm ash fir" for word in WORDS]
    assert find_repeats(texts, least=0.9) == {}  # 6 of 12 words alike: all share bands
    assert len(calls) <= len(texts) * BANDS * 8 / 2 < len(texts) * (len(texts) - 1) / 2
    assert len(calls) > len(texts)
