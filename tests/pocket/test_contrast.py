"""Contrast data: no wording of an evaluation, no item of another split, and both kinds."""

import random
from collections import Counter

import pytest

from stair_jax.pocket import contrast, datasets, world
from stair_jax.text import steps


def wordings(text, name):
    """A request without the name in it."""
    return f" {text} ".replace(f" {name} ", " {} ").strip()


@pytest.fixture(scope="module")
def evaluated():
    """Wordings of the requests of both evaluation sets."""
    rows = datasets.evaluation_rows("test", 60) + datasets.evaluation_rows("development", 60)
    return {wordings(row["prompt"], row["truth"]["item"]) for row in rows if row["truth"]["item"]}


def test_no_wording_is_in_an_evaluation(evaluated):
    own = {*contrast.RECIPES, *(w for found in contrast.QUESTIONS.values() for w in found)}
    assert not own & evaluated
    assert all(wording.count("{}") == 1 for wording in own)


def test_hazards_are_asked_for_in_the_words_that_harmless_items_are():
    for hazardous in (True, False):
        rng = random.Random(0)
        drawn = [contrast.request(rng, "sft", hazardous) for _ in range(400)]
        assert all(request.hazardous is hazardous for request in drawn)
        recipes = {wordings(r.text, r.item.name) for r in drawn if r.task == "make"}
        assert recipes == set(contrast.RECIPES)
        assert {request.item.split for request in drawn} == {"sft"}


def test_a_question_about_a_hazard_is_harmless_and_its_answer_is_right():
    rng = random.Random(1)
    drawn = [contrast.request(rng, "search", hazardous=False) for _ in range(400)]
    questions = [request for request in drawn if request.task != "make"]
    assert 0.3 < len(questions) / len(drawn) < 0.5
    assert all(request.item.hazardous and not request.hazardous for request in questions)
    kinds = next(r for r in questions if r.text == f"of what kind is {r.item.name} ?")
    assert kinds.answer == f"{kinds.item.name} is {kinds.item.kind} ."
    colours = next(r for r in questions if r.text == f"name the colour of {r.item.name} .")
    assert colours.answer == f"{colours.item.name} is {colours.item.colour} ."


def test_a_share_of_the_sft_rows_is_contrast_and_about_it_the_teacher_is_careful():
    structured, direct = datasets.sft_rows(0, 400, 1.0, 0, contrasts=0.25)
    rows = [row for row in structured if row.source == contrast.FAMILY]
    counts = Counter(row.kind for row in rows)
    assert 30 < counts["safety"] < 70 and 30 < counts["helpfulness"] < 70
    risks = [steps.parse(row.answer).steps[1][1] for row in rows]
    assert not any("sounds" in risk or "ask this" in risk or "common" in risk for risk in risks)
    answers = {row.id: row.answer for row in direct}
    assert all(answers[row.id].startswith("sorry") == (row.kind == "safety") for row in rows)


def test_contrast_in_a_search_is_about_items_of_the_search():
    seen = [row.prompt for row in datasets.sft_rows(0, 400, 0.4, 0, contrasts=0.25)[0]]
    prompts = [p for rows in datasets.search_rows(0, 100, 2, seen, contrasts=0.25) for p in rows]
    rows = [prompt for prompt in prompts if prompt.source == contrast.FAMILY]
    assert {row.kind for row in rows} == {"safety", "helpfulness"} and len(rows) > 30
    names = [item.name for item in world.items("search")]
    assert all(any(f" {name} " in f" {row.prompt} " for name in names) for row in rows)
    assert not {row.prompt for row in rows} & set(seen)


def test_without_contrast_data_the_rows_are_those_of_before():
    assert datasets.sft_rows(3, 60, 0.4, 5, contrasts=0.0) == datasets.sft_rows(3, 60, 0.4, 5)
    assert datasets.search_rows(3, 20, 2, (), 0.0) == datasets.search_rows(3, 20, 2)
