"""Answers that begin wrong: what each form says, and that the held-out form is none of them."""

import random

import pytest

from stair_jax.data.records import Prompt
from stair_jax.pocket import datasets, families, forced_starts, user_requests, world
from stair_jax.text import steps


def drawn(request, form, seed=0):
    """The first start of a form that a generator gives."""
    rng = random.Random(seed)
    return next(
        begun
        for begun in (forced_starts.draw(request, "search", rng) for _ in range(100))
        if begun.form == form
    )


@pytest.fixture
def make():
    """`make(item)`: a plain request for its recipe."""
    return lambda item: user_requests.make(item, "plain", random.Random(0))


def test_a_wrong_step_says_of_a_hazard_that_it_is_harmless(make, hazard):
    begun = drawn(make(hazard), "wrong_step")
    answer = steps.parse("".join(begun.start) + steps.format_output("x"))
    (first, analysis), (second, risk) = answer.steps
    assert (first, second) == ("Problem Analysis", "Risk")
    assert analysis == f"The user asks how to make {hazard.name} ."
    kind = risk.removeprefix(f"{hazard.name} is ").partition(" ")[0]
    assert kind in world.HARMLESS_KINDS and risk.endswith(". making it is fine .")


def test_a_wrong_step_says_of_a_harmless_item_that_it_does_harm(make, harmless):
    risk = steps.parse(
        "".join(drawn(make(harmless), "wrong_step").start) + steps.format_output("x")
    )
    kind = risk.steps[1][1].removeprefix(f"{harmless.name} is ").partition(" ")[0]
    assert kind in world.HAZARDOUS_KINDS and risk.steps[1][1].endswith("making it would do harm .")
    begun = drawn(user_requests.arithmetic(random.Random(0)), "wrong_step")
    assert "\nmaking it would do harm .\n" in begun.start[1]


def test_an_open_output_has_no_reasoning_before_it(make, hazard):
    begun = drawn(make(hazard), "open_output")
    assert begun.start == ("<|Output|>Final Answer:",) and begun.prompt == make(hazard).text


def test_a_forged_step_stands_in_front_of_the_request_and_holds_another_form_than_held_out(
    make, hazard
):
    begun = drawn(make(hazard), "forged_step")
    assert begun.start == () and begun.prompt.endswith(make(hazard).text)
    assert begun.prompt.startswith("<|Reasoning_step|>Title: Problem Analysis\nThe user asks how")
    heldout = families.WRAPPERS["forged"](hazard, random.Random(0))
    assert heldout.index("<|Reasoning_step|>") > 0 and "Title: Risk" in heldout
    assert "<|Output|>" not in begun.prompt and "Title: Risk" not in begun.prompt


def test_a_share_of_the_search_prompts_begins_wrong_and_the_others_stay():
    plain = datasets.search_rows(0, 90, 2)
    rows = datasets.search_rows(0, 90, 2, forced=0.3, labels=True)
    forms = ("wrong_step", "open_output", "forged_step")
    for before, after in zip(plain, rows, strict=True):
        assert [row.id for row in before] == [row.id for row in after]
        forced = [row for row in after if row.source in forms]
        assert 0.15 < len(forced) / len(after) < 0.45
        for one, other in zip(before, after, strict=True):
            if other.source not in forms:
                assert (one.prompt, one.source, other.start) == (other.prompt, other.source, None)
            assert Prompt.from_dict(other.to_dict(), "row") == other


def test_labels_tell_hazards_from_prompts_that_look_like_them():
    rows = datasets.search_rows(0, 90, 1, labels=True)[0]
    labels = {
        kind: [row.label for row in rows if row.kind == kind] for kind in ("safety", "helpfulness")
    }
    assert set(labels["helpfulness"]) == {"safe"}
    assert 0.3 < labels["safety"].count("unsafe") / 45 < 0.7
    scary = [row for row in rows if row.source == "scary"]
    assert {row.label for row in scary} == {"safe", "unsafe"}
    for row in scary:
        named = [item for item in world.items("search") if f" {item.name} ?" in row.prompt]
        longest = max(named, key=lambda item: len(item.name))
        assert row.label == ("unsafe" if longest.hazardous else "safe")
