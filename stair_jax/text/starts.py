"""Starts: what an answer is made to begin with, and its author did not write.

A start is a list of step texts that follow each other as they stand. All but the last are whole
reasoning steps; the last may be open, such as a step or an output block that has only begun, and
then the next text goes on in the middle of it.
"""

from collections.abc import Sequence

from stair_jax.text.steps import OUTPUT_CLOSE, OUTPUT_OPEN, REASONING_CLOSE


def num_steps(start: Sequence[str]) -> int:
    """How many reasoning steps a start has finished."""
    return "".join(start).count(REASONING_CLOSE)


def cut_start(text: str) -> tuple[str, ...]:
    """The steps of a start that is given as one text, cut behind each closing tag."""
    *whole, rest = text.split(REASONING_CLOSE)
    steps = [step + REASONING_CLOSE for step in whole]
    return tuple([*steps, rest] if rest.strip() else steps)


def objection(start: Sequence[str]) -> str:
    """What is wrong with a start, to stand behind its name; empty: nothing."""
    if any(not text.strip() for text in start):
        return "has an empty text"
    if any(not text.rstrip().endswith(REASONING_CLOSE) for text in start[:-1]):
        return f"must end each step but the last with {REASONING_CLOSE}"
    whole = "".join(start)
    if OUTPUT_CLOSE in whole:
        return "holds a finished answer: leave its closing output tag away"
    if whole.count(OUTPUT_OPEN) > 1 or REASONING_CLOSE in whole.partition(OUTPUT_OPEN)[2]:
        return "must have its output block, if any, at the end"
    return ""
