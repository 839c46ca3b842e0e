"""A reward model's scores of an answer are those of its beginnings."""

import numpy as np
import pytest

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.no_engine import NoEngine
from stair_jax.inference.score_service import ScoreService
from stair_jax.inference.step_scores import StepScores
from stair_jax.text.steps import format_answer, format_step


class Lengths:
    """Scores a sequence by its length."""

    rows = 4

    def bucket(self, length):
        return 512

    def dispatch(self, sequences, bucket):
        values = [float(len(sequence)) for sequence in sequences]
        return Ready(values + [-1.0] * (self.rows - len(values)))


class Ready(list):
    def copy_to_host_async(self):
        pass

    def is_ready(self):
        return True

    def __array__(self, dtype=None, copy=None):
        return np.array(list(self), np.float32)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (format_answer([("A", "b"), ("C", "d")], "e"), 3),
        (format_step("A", "b"), 1),
        (format_step("A", "b") + "\n\nand", 2),
        ("a plain answer", 1),
    ],
)
def test_each_step_is_scored_at_its_end(tokenizer, answer, count):
    prompt, tokens = [1, 2, 3], tokenizer.encode_answer(answer)
    driver = Driver(NoEngine(), {"prm": ScoreService(Lengths())})
    (found,) = run_tasks(driver, [StepScores(tokenizer, prompt, tokens)])
    assert len(found) == count
    assert [id for step in found for id in step.tokens] == tokens
    ends = np.cumsum([len(step.tokens) for step in found]) + len(prompt)
    assert [step.score for step in found] == ends.tolist()
