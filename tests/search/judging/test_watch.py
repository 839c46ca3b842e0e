"""The watch over the judgements of a search."""

import pytest

from stair_jax.errors import UserError
from stair_jax.search.judging.judges import Judgement
from stair_jax.search.judging.watch import JudgeWatch

MISSING = Judgement(None, 1.0)


def varied(count):
    return [Judgement(0.1 * (number % 7), 1.0) for number in range(count)]


def see(watch, judgements):
    for judgement in judgements:
        watch.see(judgement)


def test_a_judge_that_loses_its_format_stops_the_search():
    watch = JudgeWatch(0.5, window=10)
    see(watch, varied(30))
    see(watch, [MISSING] * 5)
    with pytest.raises(UserError, match="of the last 10 judgements 40% could be read"):
        watch.see(MISSING)


def test_missing_judgements_that_lie_back_are_forgotten():
    watch = JudgeWatch(0.5, window=10)
    see(watch, ([MISSING] * 5 + varied(5)) * 20)
    with pytest.raises(UserError, match="40% could be read"):  # one more than half
        see(watch, [MISSING] * 6)


def test_judgements_that_are_all_alike_stop_the_search():
    watch = JudgeWatch(0.5, window=10)
    see(watch, varied(8))
    see(watch, [Judgement(1.0, 1.0)] * 9)
    with pytest.raises(UserError, match="the last 10 judgements are all alike"):
        watch.see(Judgement(1.0, 1.0))


def test_another_judgement_begins_the_count_anew():
    watch = JudgeWatch(0.0, window=10)
    see(watch, ([Judgement(1.0, 1.0)] * 9 + [MISSING]) * 10)
    with pytest.raises(UserError, match="all alike"):
        see(watch, [Judgement(1.0, 1.0)] * 10)


def test_nothing_is_said_before_there_are_enough():
    watch = JudgeWatch(1.0, window=10)
    see(watch, [MISSING] * 9)
    with pytest.raises(UserError, match="of the last 10 judgements 0% could be read"):
        watch.see(MISSING)
