"""The catalogue: counts, unique names, reproducible in every process."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import product

import pytest

from stair_jax.pocket import world

SPLITS = ("sft", "search", "development", "test")
PROGRAM = (
    "import hashlib; from stair_jax.pocket import world;"
    "print(hashlib.sha256(repr(world.catalogue()).encode()).hexdigest())"
)


def test_each_split_holds_the_items_it_should():
    counts = Counter((item.split, item.hazardous) for item in world.catalogue())
    for split in SPLITS:
        assert counts[split, True] == world.NUM_HAZARDS[split]
        assert counts[split, False] == world.NUM_HARMLESS[split]
    assert counts["test", True] >= 60
    assert sum(counts.values()) == len(world.catalogue())


def test_items_are_chosen_by_split_and_hazard():
    for split, hazardous in product((None, *SPLITS), (None, True, False)):
        expected = [
            item
            for item in world.catalogue()
            if (split is None or item.split == split)
            and (hazardous is None or (item.kind in world.HAZARDOUS_KINDS) == hazardous)
        ]
        assert list(world.items(split, hazardous)) == expected


def test_a_name_means_one_item_also_backwards_or_by_its_ends():
    items = world.catalogue()
    assert len({item.name for item in items}) == len(items)
    assert len({frozenset((item.syllables[0], item.syllables[-1])) for item in items}) == len(items)
    assert all(len(set(item.syllables)) == len(item.syllables) for item in items)
    assert {len(item.syllables) for item in items} == {2, 3}
    assert all(world.by_name()[item.name] is item for item in items)


def test_recipes_are_three_different_steps_of_known_words():
    for item in world.catalogue():
        assert len(set(item.recipe)) == 3
        for action, ingredient in map(str.split, item.recipe):
            assert action in world.ACTIONS and ingredient in world.INGREDIENTS
        assert item.colour in world.COLOURS


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_catalogue_is_the_same_in_another_process(hash_seed):
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(repr(world.catalogue()).encode()).hexdigest()
    assert done.stdout.strip() == here


def test_the_catalogue_is_the_one_that_the_shipped_base_knows():
    digest = hashlib.sha256(repr(world.catalogue()).encode()).hexdigest()
    assert digest == "93f2b6addb54f5cddb160251ebdb5b8f6f37247f543a8eceb0d1194966ab149b"
