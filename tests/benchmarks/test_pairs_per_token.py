"""The world in which pairs are counted: what its judge says is what is true of it."""

import argparse

import pytest

from benchmarks.pairs_per_token import VARIANTS, Setup, World, path_of
from stair_jax.search.settings import SearchSettings
from stair_jax.settings import build
from stair_jax.text import steps


@pytest.mark.parametrize("rewards", ["paper", "release"])
def test_without_errors_of_the_judge_an_answer_has_its_true_value(rewards):
    flags = argparse.Namespace(
        prompts=4,
        num_iterations=30,
        min_visits=2,
        v0=0.5,
        v1=0.8,
        seed=0,
        rewards=rewards,
        easy=0.5,
        errors=0.0,
    )
    setup = Setup(World(0, rewards, easy=0.5), flags)
    answers = 0
    for tree in setup.search(VARIANTS["default"]):
        for index, node in enumerate(tree.nodes):
            path = path_of("".join(tree.texts(tree.path(index))))
            assert len(path) == node.depth
            if node.terminal:
                answers += 1
                true = setup.world.value(int(tree.id[1:]), path, is_terminal=True)
                assert node.reward == pytest.approx(true)
    assert answers > 3


def test_a_path_is_read_off_the_last_block():
    text = steps.format_step("A", "x") + steps.format_step("AC", "x") + steps.format_output("#ACB#")
    assert path_of(text) == (0, 2, 1) and path_of("question 3?") == ()


def test_variants_are_settings_of_the_search():
    for variant in VARIANTS.values():
        settings = build(
            SearchSettings, {"tree": variant.tree, "more_pairs": variant.more}, "search"
        )
        for part, values in ((settings.tree, variant.tree), (settings.more_pairs, variant.more)):
            assert all(getattr(part, name) == value for name, value in values.items())
