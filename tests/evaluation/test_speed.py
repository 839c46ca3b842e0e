"""Seconds and latency of answers."""

import pytest

from stair_jax.evaluation.speed import Speed, side_by_side


def test_processes_that_share_the_cases_are_as_fast_as_the_slowest_one():
    speed = side_by_side([Speed(3, 6, 600, 10.0, 12.0), Speed(2, 4, 300, 8.0, 3.0)])
    assert speed == Speed(5, 10, 900, 10.0, 15.0)
    assert (speed.latency, speed.answers_per_second, speed.tokens_per_second) == (3.0, 1.0, 90.0)
    assert str(speed) == "5 cases in 10.0 s, 1.0 answers/s, 90 generated tokens/s, 3.0 s a prompt"


@pytest.mark.parametrize("speed", [Speed(), side_by_side([])])
def test_nothing_made_is_no_division_by_zero(speed):
    assert speed.to_dict() == {
        "cases": 0,
        "answers": 0,
        "generated_tokens": 0,
        "seconds": 0.0,
        "latency": 0.0,
        "answers_per_second": 0.0,
        "tokens_per_second": 0.0,
    }
    assert str(speed) == "0 cases in 0.0 s, 0.0 answers/s, 0.0 s a prompt"


def test_what_is_sent_to_the_first_process_is_read_again_as_it_was():
    speed = Speed(3, 6, 600, 1 / 3, 12.5)
    assert Speed(**speed.values()) == speed
