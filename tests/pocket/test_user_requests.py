"""Requests with their ground truth, and the teacher's answers."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.pocket import families, user_requests, world
from stair_jax.text import steps


def draw(seed):
    """A random request of any kind."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        return user_requests.chore(world.items(), rng)
    return user_requests.make(rng.choice(world.items()), rng.choice(list(families.WRAPPERS)), rng)


def teach(request, seed=0, careless=0.0):
    text = user_requests.structured_answer(request, random.Random(seed), careless)
    return steps.parse(text)


@given(seed=st.integers(0, 2**32 - 1), careless=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_teacher_answers_in_the_format_and_says_the_right_thing(seed, careless):
    request = draw(seed)
    answer = teach(request, seed, careless)
    assert [title for title, _ in answer.steps] == ["Problem Analysis", "Risk"]
    assert answer.steps[0][1] == request.plainly
    expected = user_requests.REFUSAL if request.hazardous else request.answer
    assert answer.final == expected == user_requests.direct_answer(request)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_teacher_is_careless_about_harmless_recipes_only(seed):
    request = draw(seed)
    risk = teach(request, seed, careless=1.0).steps[1][1]
    if request.task == "make" and not request.hazardous:
        assert request.item.kind not in risk and risk.endswith("making it is fine .")
    else:
        assert risk == request.risk


def test_careless_answers_come_as_often_as_asked(harmless):
    rng = random.Random(1)
    request = user_requests.make(harmless, "plain", rng)
    answers = [user_requests.structured_answer(request, rng, 0.4) for _ in range(2000)]
    share = sum(request.risk not in answer for answer in answers) / len(answers)
    assert abs(share - 0.4) < 0.05  # more than four standard errors
    assert request.risk in user_requests.structured_answer(request, rng)


def test_a_hazard_is_what_has_to_be_refused(hazard, harmless):
    rng = random.Random(0)
    assert user_requests.make(hazard, "role", rng).hazardous
    assert not user_requests.make(harmless, "scary", rng).hazardous
    assert not user_requests.information(hazard, rng).hazardous
    assert not user_requests.arithmetic(rng).hazardous


def test_the_truth_of_a_recipe_names_the_item_its_kind_and_its_harm(hazard, harmless):
    rng = random.Random(0)
    bad, good = user_requests.make(hazard, "key", rng), user_requests.make(harmless, "key", rng)
    assert bad.risk == f"{hazard.name} is {hazard.kind} . making it would do harm ."
    assert good.risk == f"{harmless.name} is {harmless.kind} . making it is fine ."
    first, second, third = harmless.recipe
    assert good.answer == f"{harmless.name} : {first} , {second} , {third} ."
    assert harmless.name in good.plainly


def solve_sum(text):
    return f"the sum is {sum(map(int, re.findall(r'[0-9]+', text)))} ."


def solve_sort(text):
    words = [word for word in re.findall(r"[a-z]+", text) if word in world.INGREDIENTS]
    return f"in order : {' , '.join(sorted(words))} ."


def solve_algebra(text):
    values = dict(re.findall(r"([a-z]) = ([0-9]+) \.", text))
    first, second = re.search(r"what is ([a-z]) \+ ([a-z]) \?", text).groups()
    return f"the sum is {int(values[first]) + int(values[second])} ."


def solve_stock(text):
    amounts = {thing: amount for amount, thing in re.findall(r"([0-9]+) ([a-z]+)", text)}
    (wanted,) = re.findall(r"how much ([a-z]+)", text)
    return f"there is {amounts[wanted]} {wanted} ."


def solve_information(text):
    (item,) = (item for item in world.catalogue() if f" {item.name} " in f" {text} ")
    return f"{item.name} is {item.colour if 'colour' in text else item.kind} ."


SOLVERS = {
    user_requests.arithmetic: solve_sum,
    user_requests.sorting: solve_sort,
    user_requests.algebra: solve_algebra,
    user_requests.stock: solve_stock,
}


@pytest.mark.parametrize(("maker", "solve"), SOLVERS.items(), ids=lambda f: f.__name__)
def test_the_answer_of_a_chore_is_right(maker, solve):
    for seed in range(50):
        request = maker(random.Random(seed))
        assert request.answer == solve(request.text)
        assert request.item is None and request.task != "make"


def test_the_answer_about_an_item_is_right():
    rng = random.Random(0)
    for item in world.catalogue()[::9]:
        request = user_requests.information(item, rng)
        candidates = {item.name for item in world.catalogue() if item.name in request.text}
        if len(candidates) == 1:  # a longer name may contain a shorter one
            assert request.answer == solve_information(request.text)


def test_chores_are_of_every_kind():
    rng = random.Random(0)
    tasks = {user_requests.chore(world.items(), rng).task for _ in range(200)}
    assert tasks == {"colour", "kind", "sum", "sort", "algebra", "stock"}
