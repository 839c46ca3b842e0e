"""Steps of a task follow each other, whatever comes late, and all are closed."""

from dataclasses import dataclass

import pytest

from stair_jax.decoding.sequential import SequentialTask
from stair_jax.decoding.task import GatherTask, Task
from stair_jax.testing.scripted_target import CallTask, Computed, run_scripted


def call(value, open_tasks):
    return CallTask(lambda: value, open_tasks)


class Known(Task):
    """Knows its result without asking."""

    def start(self):
        self.result = 5
        return []

    def receive(self, completion):
        raise AssertionError("it has asked nothing")


@pytest.mark.parametrize("disorder", [None, 0, 1, 2])
def test_each_step_gets_the_result_of_the_one_before(disorder):
    open_tasks = set()

    def steps():
        first = yield call(2, open_tasks)
        second = yield Known()
        third = yield GatherTask([call(first * second, open_tasks), call(7, open_tasks)])
        return [first, second, *third]

    assert run_scripted([SequentialTask(steps())], disorder) == [[2, 5, 10, 7]]
    assert not open_tasks


def test_steps_without_a_task_are_done_at_once():
    def steps():
        return 3
        yield

    task = SequentialTask(steps())
    assert task.start() == [] and task.result == 3


@dataclass(frozen=True)
class Ask:
    id: tuple


class FirstOfTwo(Task):
    """Asks twice, and needs one completion."""

    def start(self):
        return [Ask((0,)), Ask((1,))]

    def receive(self, completion):
        self.result = completion.value
        return []


def test_a_completion_of_a_step_that_is_over_is_not_taken_for_one_of_the_next():
    def steps():
        first = yield FirstOfTwo()
        second = yield FirstOfTwo()
        return first, second

    task = SequentialTask(steps())
    early, late = task.start()
    next_early, _ = task.receive(Computed(early.id, "a"))
    assert task.receive(Computed(late.id, "late")) == [] and not task.done
    task.receive(Computed(next_early.id, "b"))
    assert task.result == ("a", "b")


def test_closing_closes_the_step_under_way_and_the_generator():
    open_tasks, ended = set(), []

    def steps():
        try:
            yield call(1, open_tasks)
        finally:
            ended.append(True)

    task = SequentialTask(steps())
    task.start()
    assert len(open_tasks) == 1 and not ended
    task.close()
    assert not open_tasks and ended == [True]
