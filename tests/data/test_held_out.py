"""Held-out rows: whole prompts, the same ones whatever else there is."""

import pytest

from stair_jax.data.held_out import split_held_out
from stair_jax.errors import UserError

PROMPTS = [f"question {number % 200}?" for number in range(1000)]  # five rows each


@pytest.mark.parametrize("amount", [0.1, 0.5, 40])
def test_each_row_is_on_one_side_and_the_rows_of_a_prompt_stay_together(amount):
    split = split_held_out(PROMPTS, amount)
    assert sorted([*split.training, *split.held_out]) == list(range(1000))
    assert split.training == sorted(split.training) and split.held_out == sorted(split.held_out)
    sides = [{PROMPTS[number] for number in side} for side in split]
    assert not sides[0] & sides[1]


def test_a_share_is_met_about_and_a_number_with_whole_prompts():
    assert 60 <= len(split_held_out(PROMPTS, 0.1).held_out) <= 140  # 100 with a deviation of 21
    assert len(split_held_out(PROMPTS, 40).held_out) == 40
    assert len(split_held_out(PROMPTS, 41).held_out) == 45
    assert split_held_out(PROMPTS, 0) == (list(range(1000)), [])


def test_a_share_holds_out_the_same_prompts_of_more_rows_in_another_order():
    more = [*reversed(PROMPTS), *(f"another {number}" for number in range(300))]
    held = {PROMPTS[number] for number in split_held_out(PROMPTS, 0.2).held_out}
    again = {more[number] for number in split_held_out(more, 0.2).held_out}
    assert held == {prompt for prompt in again if prompt.startswith("question")}
    assert held < again


def test_a_larger_amount_holds_out_what_a_smaller_one_does():
    for less, more in ((0.1, 0.3), (20, 60)):
        smaller, larger = (set(split_held_out(PROMPTS, amount).held_out) for amount in (less, more))
        assert smaller < larger


@pytest.mark.parametrize(("amount", "said"), [(3, "train on"), (0.001, "hold out")])
def test_a_side_without_rows_is_refused(amount, said):
    with pytest.raises(UserError, match=rf"held_out is {amount:g}: .* leaves none to {said}"):
        split_held_out(["a", "b", "b"], amount)


def test_a_broken_number_of_rows_is_refused():
    with pytest.raises(
        UserError, match=r"held_out is 1\.5: it must be a share below 1, or a whole"
    ):
        split_held_out(PROMPTS, 1.5)
