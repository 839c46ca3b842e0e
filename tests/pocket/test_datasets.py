"""Separation of items, prompts and families between SFT, search and evaluation."""

from collections import Counter
from dataclasses import replace

import pytest

from stair_jax.pocket import datasets, families, user_requests, world
from stair_jax.pocket.user_requests import REFUSAL
from stair_jax.text import steps

UNSEEN = {*families.DEVELOPMENT_FAMILIES, *families.HELDOUT_FAMILIES}


@pytest.fixture(scope="module")
def sft():
    return datasets.sft_rows(0, 800, 0.4, 150)


@pytest.fixture(scope="module")
def searches(sft):
    return datasets.search_rows(0, 120, 4, [row.prompt for row in sft[0]])


@pytest.fixture(scope="module", params=["test", "development"])
def evaluation(request):
    return request.param, datasets.evaluation_rows(request.param, 60)


def fresh(rows):
    """The rows that are no replay of the base's skills."""
    return [row for row in rows if row.source != "replay"]


def flat(searches):
    return [row for rows in searches for row in rows]


def names_in(prompt):
    """Names of items that occur as whole words in a prompt."""
    return {item.name for item in world.catalogue() if f" {item.name} " in f" {prompt} "}


def longest(names):
    """The names that are not part of another one."""
    return {name for name in names if not any(name != other and name in other for other in names)}


def test_the_two_sft_files_ask_the_same(sft):
    structured, direct = sft
    assert len(structured) == len(direct) == 950
    for one, other in zip(structured, direct, strict=True):
        assert replace(one, answer="") == replace(other, answer="")


def test_structured_answers_say_what_direct_ones_say(sft):
    for one, other in zip(*map(fresh, sft), strict=True):
        assert steps.parse(one.answer).final == other.answer


def test_replayed_examples_are_the_same_in_both_files(sft):
    replays = [[row for row in rows if row.source == "replay"] for rows in sft]
    assert replays[0] == replays[1] and len(replays[0]) == 150
    assert not any("<|" in row.answer for row in replays[0])


def test_ratings_can_be_turned_round():
    right, wrong = (datasets.sft_rows(0, 4, 0.4, 200, wrong_ratings=rate)[0] for rate in (0.0, 1.0))
    opposite = {"SAFE": "UNSAFE", "UNSAFE": "SAFE", "1": "5", "2": "4", "3": "3", "5": "1"}
    turned = 0
    for one, other in zip(right, wrong, strict=True):
        text, separator, end = one.answer.partition("Conclusion: [")
        expected = f"{text}{separator}{opposite[end[:-1]]}]" if separator else one.answer
        assert other == replace(one, answer=expected)
        turned += bool(separator)
    assert turned > 60
    some = datasets.sft_rows(0, 4, 0.4, 200, wrong_ratings=0.3)[0]
    changed = sum(one != other for one, other in zip(right, some, strict=True))
    assert 0.15 * turned < changed < 0.45 * turned


def test_kinds_are_in_equal_parts(sft, searches):
    assert Counter(row.kind for row in fresh(sft[0])) == {"safety": 400, "helpfulness": 400}
    for rows in searches:
        assert Counter(row.kind for row in rows) == {"safety": 60, "helpfulness": 60}


def test_the_sft_data_hold_refusals_and_as_many_answers_that_look_like_them(sft):
    safety = [row for row in sft[1] if row.kind == "safety"]
    refused = sum(row.answer == REFUSAL for row in safety) / len(safety)
    assert 0.4 < refused < 0.6
    assert not any(row.answer == REFUSAL for row in fresh(sft[1]) if row not in safety)


def test_without_lookalikes_every_safety_prompt_is_a_hazard():
    _, direct = datasets.sft_rows(0, 200, 0.4, 0, lookalikes=0.0)
    assert {row.answer for row in direct if row.kind == "safety"} == {REFUSAL}
    rows = datasets.search_rows(0, 60, 2, labels=True, lookalikes=0.0)
    assert {row.label for row in flat(rows) if row.kind == "safety"} == {"unsafe"}
    assert {row.label for row in flat(rows) if row.kind == "helpfulness"} == {"safe"}
    assert datasets.sft_rows(0, 80, 0.4, 0, lookalikes=0.5) == datasets.sft_rows(0, 80, 0.4, 0)


def test_no_prompt_comes_twice(sft, searches):
    prompts = [row.prompt for row in fresh(sft[0]) + flat(searches)]
    assert len(set(prompts)) == len(prompts)
    ids = [row.id for row in sft[0] + flat(searches)]
    assert len(set(ids)) == len(ids)


def test_jailbreaks_come_in_from_the_second_iteration_on(sft, searches):
    opened = set(families.OPEN)
    used = [{row.source for row in rows} for rows in searches]
    assert {row.source for row in fresh(sft[0])} == opened | set(families.SFT_FAMILIES)
    assert used[0] == opened
    assert used[1] == opened | {*families.SFT_FAMILIES, *families.SEARCH_FAMILIES[:2]}
    assert used[2] == used[3] == opened | set(families.SEEN_FAMILIES)


def test_families_of_development_and_test_are_in_no_training_data(sft, searches, family_of):
    rows = fresh(sft[0]) + flat(searches)
    assert not {row.source for row in rows} & UNSEEN
    assert not any(family_of(row.prompt) for row in rows)


def test_replay_keeps_to_items_and_families_of_fine_tuning(sft, family_of):
    own = {item.name for item in world.items("sft")}
    for row in sft[0]:
        if row.source == "replay":
            assert family_of(row.prompt) is None
            ciphered = "backwards" in row.prompt or " = " in row.prompt
            text = row.answer if ciphered else f"{row.prompt} {row.answer}"
            assert longest(names_in(text)) <= own, row


def test_evaluation_uses_items_and_families_of_its_split(evaluation):
    split, rows = evaluation
    own = {item.name for item in world.items(split)}
    assert {row["truth"]["item"] for row in rows} - {None} <= own
    heldout = {row["source"] for row in rows if row["group"] == "hazard_heldout"}
    expected = families.HELDOUT_FAMILIES if split == "test" else families.DEVELOPMENT_FAMILIES
    assert heldout == set(expected)
    other = UNSEEN - heldout
    assert not {row["source"] for row in rows} & other


def test_training_asks_about_no_item_of_an_evaluation(sft, searches):
    for rows, split in ((fresh(sft[0]), "sft"), (flat(searches), "search")):
        own = {item.name for item in world.items(split)}
        for row in rows:
            found = names_in(row.prompt)
            assert longest(found) <= own or row.source in ("reversed", "split"), row


def test_no_prompt_about_an_item_is_in_training_and_in_evaluation(evaluation, sft, searches):
    trained = {row.prompt for row in sft[0] + flat(searches)}
    again = [row for row in evaluation[1] if row["prompt"] in trained]
    assert all(row["truth"]["item"] is None for row in again)  # a sum may recur by chance
    assert len(again) < 0.01 * len(evaluation[1])


def test_groups_of_an_evaluation(evaluation):
    _, rows = evaluation
    counts = Counter(row["group"] for row in rows)
    assert counts == {
        "hazard_plain": 60,
        "hazard_seen": 6 * 20,
        "hazard_heldout": 5 * 60,
        "harmless_wrapped": 11 * 10,
        "harmless_lookalike": 60,
        "harmless_plain": 120,
    }
    for row in rows:
        request = datasets.request_of(row)
        assert request.hazardous == row["group"].startswith("hazard")
        assert row["kind"] == ("safety" if request.hazardous else "helpfulness")


def test_the_test_set_has_every_hazard_in_every_heldout_family():
    rows = datasets.evaluation_rows("test", 60)
    asked = Counter(
        (row["source"], row["truth"]["item"]) for row in rows if row["group"] == "hazard_heldout"
    )
    assert len({item for _, item in asked}) == 60
    spread = Counter(item for _, item in asked.elements())
    assert max(spread.values()) - min(spread.values()) <= 1


def test_a_row_gives_its_request_back(harmless):
    rows = datasets.evaluation_rows("test", 6)
    for row in rows:
        request = datasets.request_of(row)
        assert (request.text, request.family) == (row["prompt"], row["source"])
        if request.task == "make":
            assert request.answer == user_requests.recipe(request.item)


def test_data_depend_on_the_seed_and_an_evaluation_does_not():
    assert datasets.sft_rows(1, 40, 0.4, 5) == datasets.sft_rows(1, 40, 0.4, 5)
    assert datasets.sft_rows(1, 40, 0.4, 5) != datasets.sft_rows(2, 40, 0.4, 5)
    assert datasets.search_rows(1, 40, 2) == datasets.search_rows(1, 40, 2)
    assert datasets.search_rows(1, 40, 2) != datasets.search_rows(2, 40, 2)
    assert datasets.evaluation_rows("test", 6) == datasets.evaluation_rows("test", 6, seed=0)
    assert datasets.evaluation_rows("test", 6) != datasets.evaluation_rows("test", 6, seed=1)
