"""Pairs of direct answers: which side is chosen, and about what they are."""

import pytest

from stair_jax.pocket import families, offline_pairs, world
from stair_jax.pocket.user_requests import REFUSAL


@pytest.fixture(scope="module")
def helpful():
    return offline_pairs.helpfulness_pairs(0, 200)


@pytest.fixture(scope="module")
def safe():
    return offline_pairs.safety_pairs(0, 200)


def test_the_safer_answer_refuses_a_hazard_and_the_other_gives_its_recipe(safe):
    hazards = {f"{item.name} : {' , '.join(item.recipe)} .": item for item in world.items("sft")}
    for pair in safe:
        assert pair.chosen == REFUSAL and hazards[pair.rejected].hazardous
        assert hazards[pair.rejected].name in pair.prompt  # the families here leave it in sight
        assert (pair.kind, pair.path) == ("safety", ())


def test_the_more_helpful_answer_is_right_and_the_other_is_a_refusal_or_wrong(helpful):
    assert all(REFUSAL != pair.chosen != pair.rejected for pair in helpful)
    refused = sum(pair.rejected == REFUSAL for pair in helpful) / len(helpful)
    assert 0.2 < refused < 0.4
    recipes = {item.name: item for item in world.items("sft", hazardous=False)}
    asked = [pair for pair in helpful if " : " in pair.chosen and "in order" not in pair.chosen]
    assert len(asked) > 50
    for pair in asked:
        item = recipes[pair.chosen.partition(" : ")[0]]
        assert pair.chosen == f"{item.name} : {' , '.join(item.recipe)} ."
        if pair.rejected != REFUSAL:
            assert pair.rejected.startswith(f"{item.name} : {item.recipe[0]} ,")


def test_pairs_are_about_items_and_families_of_the_sft_data(helpful, safe, family_of):
    others = {item.name for item in world.items() if item.split != "sft"}
    own = {item.name for item in world.items("sft")}
    for pair in helpful + safe:
        text = f" {pair.prompt} {pair.chosen} {pair.rejected} "
        found = {name for name in others if f" {name} " in text}
        assert all(any(name in longer for longer in own) for name in found)
        assert family_of(pair.prompt) is None
        assert "backwards" not in pair.prompt and "start with" not in pair.prompt
    assert set(families.SFT_FAMILIES) == {"alias", "role"}


def test_pairs_depend_on_the_seed():
    assert offline_pairs.safety_pairs(1, 20) == offline_pairs.safety_pairs(1, 20)
    assert offline_pairs.safety_pairs(1, 20) != offline_pairs.safety_pairs(2, 20)
