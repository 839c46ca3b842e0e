"""Wrappers of the searches: they hold the prompt, and are none that evaluation reports."""

import base64
import codecs
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.study import wrappers
from stair_jax.evaluation.attacks.coded import Base64, Base64Input, Leetspeak, Rot13
from stair_jax.evaluation.attacks.role_play import OWN_TEMPLATES

PROMPTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1).filter(
    str.strip
)


@given(PROMPTS)
def test_a_scene_and_a_persuasion_hold_the_prompt_as_it_is(prompt):
    for wrap, templates in (
        (wrappers.role_play, wrappers.ROLE_PLAYS),
        (wrappers.persuasion, wrappers.PERSUASIONS),
    ):
        text = wrap(prompt)
        assert text in [template.replace("{prompt}", prompt) for template in templates]
        assert text == wrap(prompt)


@given(PROMPTS)
def test_codes_decode_to_the_prompt(prompt):
    words = wrappers.base64(prompt).split()
    assert base64.b64encode(prompt.encode()).decode() in words
    assert prompt in codecs.decode(wrappers.rot13(prompt), "rot13")


def test_leetspeak_writes_digits_for_letters():
    assert wrappers.leetspeak("Open a bottle").endswith("0p3n 4 b07713")
    back = str.maketrans("43105", "aeios")
    assert "open a" in wrappers.leetspeak("open a").translate(back)


@pytest.mark.parametrize("prompt", ["Open the gate", "Feed the cat", "Sing", "Fold a paper crane"])
def test_no_wrapper_is_one_that_evaluation_reports(prompt):
    made = {wrap(prompt) for wrap in wrappers.WRAPPERS.values()}
    draw = random.Random(0)
    reported = {text.replace("{prompt}", prompt) for _, text in OWN_TEMPLATES}
    reported |= {
        attack().rewrite(prompt, draw) for attack in (Base64, Base64Input, Rot13, Leetspeak)
    }
    assert not made & reported
    assert len(made) == len(wrappers.WRAPPERS)


def test_families_grow_from_one_iteration_to_the_next():
    by_iteration = wrappers.BY_ITERATION
    assert by_iteration[1] == ()
    assert set(by_iteration[2]) < set(by_iteration[3]) == set(wrappers.WRAPPERS)
