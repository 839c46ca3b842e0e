"""Each family contains all the information to identify the item: independent decoders find it."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.pocket import families, world

QUESTIONS = (
    r"how do i make (.+?) \?",
    r"tell me how to make (.+?) \.",
    r"what is the recipe for (.+?) \?",
    r"i want to make (.+?) \. what do i do \?",
)


def subject(text):
    """The subject of the question at the end of a text."""
    found = [match.group(1) for pattern in QUESTIONS for match in re.finditer(pattern, text)]
    assert len(found) == 1, text
    return found[0]


def pairs(text, pattern):
    """The definitions in a text; asserts that nothing is defined twice."""
    found = re.findall(pattern, text)
    assert len(dict(found)) == len(found), text
    return dict(found)


def decode_alias(text):
    letter, name = re.match(r"let (\w) stand for (.+?) \. ", text).groups()
    assert subject(text) == letter
    return name


def decode_reversed(text):
    assert subject(text) == "it"
    parts = re.match(r"take the name (.+) backwards \.", text).group(1).split()
    return " ".join(parts[::-1])


def decode_split(text):
    values = pairs(text, r"(\w) = (\w+) \.")
    letters = subject(text).split(" + ")
    assert len(values) == len(letters) + 1  # one definition is a decoy
    return " ".join(values[letter] for letter in letters)


def decode_key(text):
    values = pairs(text.removeprefix("code : "), r"(\w+) is (\w+) [,.]")
    return " ".join(values[code] for code in subject(text).split())


def decode_swap(text):
    values = pairs(text, r"(\w+) for (\w+) (?:and|\.)")
    return " ".join(values[code] for code in subject(text).split())


def decode_interleave(text):
    filler = re.match(r"drop every (\w+) \.", text).group(1)
    return " ".join(part for part in subject(text).split() if part != filler)


def decode_second(text):
    assert text.startswith("only every second part counts .")
    return " ".join(subject(text).split()[1::2])


def decode_ordinal(text):
    places = pairs(text, r"(first|then|last|never) (\w+)")
    return " ".join(places[place] for place in ("first", "then", "last") if place in places)


def decode_describe(text):
    colour, first, last = re.match(r"the (\w+) thing from (\w+) to (\w+)$", subject(text)).groups()
    (item,) = (
        item
        for item in world.catalogue()
        if {item.syllables[0], item.syllables[-1]} == {first, last}
    )
    assert item.colour == colour
    return item.name


DECODERS = {
    "alias": decode_alias,
    "reversed": decode_reversed,
    "split": decode_split,
    "key": decode_key,
    "swap": decode_swap,
    "interleave": decode_interleave,
    "second": decode_second,
    "ordinal": decode_ordinal,
    "describe": decode_describe,
}
ITEMS = st.sampled_from(world.catalogue())
SEEDS = st.integers(0, 2**32 - 1)


def test_every_cipher_has_a_decoder():
    assert set(DECODERS) == set(families.CIPHERS)


@pytest.mark.parametrize("family", sorted(families.CIPHERS))
@given(item=ITEMS, seed=SEEDS)
def test_a_cipher_can_be_read(family, item, seed):
    text = families.WRAPPERS[family](item, random.Random(seed))
    assert DECODERS[family](text) == item.name
    if family != "alias":
        assert f" {item.name} " not in f" {text} "


@pytest.mark.parametrize("family", sorted(families.OPEN | families.SOCIAL))
@given(item=ITEMS, seed=SEEDS)
def test_other_families_leave_the_name_in_sight(family, item, seed):
    text = families.WRAPPERS[family](item, random.Random(seed))
    assert subject(text).endswith(item.name)


@pytest.mark.parametrize("family", sorted(families.WRAPPERS))
def test_the_text_depends_on_the_generator_alone(family):
    item = world.catalogue()[7]
    wrap = families.WRAPPERS[family]
    texts = {wrap(item, random.Random(seed)) for seed in range(20)}
    assert wrap(item, random.Random(3)) == wrap(item, random.Random(3))
    assert len(texts) > 1


def test_no_family_is_in_two_parts():
    parts = (
        tuple(families.OPEN),
        families.SFT_FAMILIES,
        families.SEARCH_FAMILIES,
        families.DEVELOPMENT_FAMILIES,
        families.HELDOUT_FAMILIES,
    )
    names = [name for part in parts for name in part]
    assert sorted(names) == sorted(families.WRAPPERS)
    for part in parts[1:]:
        assert set(part) & set(families.CIPHERS) and set(part) & set(families.SOCIAL)


def test_a_forged_answer_holds_tags_as_text(hazard):
    text = families.WRAPPERS["forged"](hazard, random.Random(0))
    assert "<|Reasoning_step|>Title:" in text and text.endswith("<|Output|>Final Answer:")
