"""Starts: texts that an answer is made to begin with."""

import pytest

from stair_jax.text.starts import cut_start, num_steps, objection
from stair_jax.text.steps import OUTPUT_OPEN, REASONING_OPEN, format_output, format_step

STEP = format_step("Plan", "Think.")
OPEN = f"{REASONING_OPEN}Title: Plan\nSure"
OUTPUT = f"\n\n{OUTPUT_OPEN}Final Answer: It is"


@pytest.mark.parametrize(
    ("start", "steps"),
    [((), 0), ((STEP,), 1), ((OPEN,), 0), ((STEP, "\n\n" + STEP), 2), ((STEP, OUTPUT), 1)],
)
def test_finished_steps_are_counted_and_an_open_one_is_not(start, steps):
    assert num_steps(start) == steps and not objection(start)
    assert cut_start("".join(start)) == start


def test_white_space_behind_the_last_step_makes_no_step_of_its_own():
    assert cut_start(STEP + "\n\n") == (STEP,)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (("",), "empty"),
        ((STEP, " \n"), "empty"),
        ((OPEN, STEP), "must end each step but the last"),
        ((STEP, "\n\n" + format_output("4")), "finished answer"),
        ((OUTPUT + OUTPUT,), "at the end"),
        ((OUTPUT + STEP,), "at the end"),
    ],
)
def test_what_is_no_start_is_named(start, message):
    assert message in objection(start)
