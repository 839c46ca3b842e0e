"""Tasks side by side: their results, priorities, cancelled ones, tokens as they come."""

from dataclasses import dataclass
from typing import Any

import pytest

from stair_jax.decoding.driver import Driver, run_all, run_tasks
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, request_key
from stair_jax.decoding.task import GatherTask, Task
from stair_jax.errors import UserError
from stair_jax.testing.scripted_engine import ScriptedEngine, ZeroReplies
from stair_jax.testing.tiny_models import tiny_model

CONFIG, PARAMS = tiny_model(61, num_hidden_layers=1)
SAMPLING = Sampling(temperature=1.2, top_k=50, top_p=0.9, max_tokens=12)


def make_engine(**sizes):
    usual = {"num_slots": 4, "page_size": 4, "prefill_rows": 4, "prefill_width": 8}
    return Engine(CONFIG, PARAMS, max_length=64, steps_per_call=4, **(usual | sizes))


class Chain(Task[tuple[int, ...]]):
    """Samples a few times, each time after what was sampled before, and keeps a handle."""

    def __init__(self, engine, seed, length=3, sampling=SAMPLING):
        self.engine, self.seed, self.left, self.sampling = engine, seed, length, sampling
        self.handle = None
        self.is_closed = False

    def start(self):
        self.handle = self.engine.keep((1 + self.seed % 50, 2, 3))
        return [self.ask(())]

    def ask(self, tokens):
        self.left -= 1
        key = request_key(self.seed, self.left)
        return Request((self.left,), tokens, self.handle, self.sampling, key=key)

    def receive(self, completion):
        sampled = (*getattr(self, "tokens", ()), *completion.tokens)
        self.tokens = sampled
        if self.left:
            return [self.ask(sampled)]
        self.result = sampled
        return []

    def close(self):
        assert not self.is_closed
        self.is_closed = True
        if self.handle is not None:
            self.engine.release(self.handle)


def alone(seed, **options):
    engine = make_engine()
    (result,) = run_tasks(Driver(engine), [Chain(engine, seed, **options)])
    return result


def test_a_result_does_not_depend_on_what_runs_beside_it():
    engine = make_engine()
    together = list(run_tasks(Driver(engine), (Chain(engine, seed) for seed in range(9))))
    few = list(run_tasks(Driver(engine), (Chain(engine, seed) for seed in range(9)), in_flight=2))
    assert together == few == [alone(seed) for seed in range(9)]
    assert len(set(together)) == 9


def free_pages(engine):
    return sum(scheduler.pool.num_free for scheduler in engine._schedulers)


@pytest.mark.parametrize("num_rounds", [0, 1, 2, 3, 5, 8])
def test_a_cancelled_task_leaves_nothing_and_the_others_do_not_notice(num_rounds):
    """Cancelled while it waits, is prefilled, stands in line, or has a slot."""
    engine = make_engine(num_slots=2)
    pages = free_pages(engine)
    driver = Driver(engine)
    tasks = [Chain(engine, seed) for seed in range(6)]
    tickets = [driver.add(task, priority=seed) for seed, task in enumerate(tasks)]
    results = {}
    for _ in range(num_rounds):
        results |= dict(driver.step())
    dropped = {ticket for ticket in tickets[::2] if ticket not in results}
    for ticket in dropped:
        driver.cancel(ticket)
        driver.cancel(ticket)  # does nothing
    while driver.pending:
        results |= dict(driver.step())
    assert set(results) == set(tickets) - dropped
    assert all(task.is_closed for task in tasks)
    assert all(results[ticket] == alone(ticket) for ticket in results)
    assert not engine.pending and free_pages(engine) == pages
    assert run_all(engine, [Request("more", (5,), sampling=SAMPLING)])["more"].tokens


def test_cancelling_all_leaves_an_engine_that_goes_on():
    engine = make_engine(num_slots=2)
    for rounds in range(5):
        driver = Driver(engine)
        for seed in range(5):
            driver.add(Chain(engine, seed))
        for _ in range(rounds):
            driver.step()
        driver.close()
        assert not driver.pending and not engine.pending
    (result,) = run_tasks(Driver(engine), [Chain(engine, 3)])
    assert result == alone(3)


def test_waiters_of_a_prefix_can_be_cancelled():
    engine = make_engine()
    handle = engine.keep(tuple(range(1, 30)))
    requests = [
        Request(number, (number,), handle, SAMPLING, key=(number, 0)) for number in range(4)
    ]
    engine.submit(requests)
    engine.step()  # they wait until their prefix is there
    engine.cancel([0, 2, "unknown"])
    found = {}
    while engine.pending:
        found |= {completion.id: completion.tokens for completion in engine.step()}
    other = make_engine()
    kept = other.keep(handle.tokens)
    expected = run_all(other, [Request(1, (1,), kept, SAMPLING, key=(1, 0))])
    assert set(found) == {1, 3} and found[1] == expected[1].tokens


def test_a_refused_request_can_be_cancelled():
    engine = make_engine()
    engine.submit([Request("long", (1,) * 64, sampling=SAMPLING)])
    engine.cancel(["long"])
    assert engine.pending == 0 and engine.step() == []


def test_two_pending_requests_of_one_id_are_refused():
    engine = make_engine()
    engine.submit([Request("a", (1,), sampling=SAMPLING)])
    with pytest.raises(ValueError, match="'a' is pending"):
        engine.submit([Request("a", (2,), sampling=SAMPLING)])


@pytest.mark.parametrize("cache_tokens", [0, 96])
def test_tokens_come_as_they_are_sampled(cache_tokens):
    """With little cache, requests are preempted: nothing is handed out twice."""
    sizes = {"cache_tokens": cache_tokens} if cache_tokens else {}
    engine = make_engine(**sizes)
    driver = Driver(engine)
    sampling = Sampling(temperature=1.0, max_tokens=40)
    heard: dict[int, list] = {seed: [] for seed in range(4)}
    parts: dict[int, int] = dict.fromkeys(heard, 0)

    def listen(seed):
        def on_tokens(id, tokens, logps):
            assert id == (0,) and len(tokens) == len(logps) > 0
            heard[seed] += tokens
            parts[seed] += 1

        return on_tokens

    for seed in heard:
        task = Chain(engine, seed, length=1, sampling=sampling)
        driver.add(task, on_tokens=listen(seed) if seed != 2 else None)
    results = {}
    while driver.pending:
        results |= dict(driver.step())
    assert (engine.stats.preempted > 0) == bool(cache_tokens)
    for seed, tokens in heard.items():
        assert tuple(tokens) == (results[seed] if seed != 2 else ())
        assert parts[seed] > 3 or seed == 2
    assert engine.take_tokens() == []


def test_tasks_of_a_low_priority_number_go_first():
    engine = make_engine(num_slots=1)
    driver = Driver(engine)
    order = []
    tickets = {driver.add(Chain(engine, seed, length=2), priority=-seed): seed for seed in range(4)}
    while driver.pending:
        order += [tickets[ticket] for ticket, _ in driver.step()]
    assert order == [3, 2, 1, 0]


@dataclass(frozen=True)
class Question:
    id: tuple[Any, ...]
    text: str
    service: str = "echo"


@dataclass(frozen=True)
class Reply:
    id: tuple[Any, ...]
    text: str


class Echo:
    """A service that answers the second time that it is stepped."""

    def __init__(self):
        self.waiting, self.late = [], []

    @property
    def pending(self):
        return len(self.waiting) + len(self.late)

    def submit(self, requests):
        self.late += requests

    def step(self):
        ready, self.waiting, self.late = self.waiting, self.late, []
        return [Reply(request.id, request.text[::-1]) for request in ready]

    def cancel(self, ids):
        ids = set(ids)
        self.waiting = [request for request in self.waiting if request.id not in ids]
        self.late = [request for request in self.late if request.id not in ids]


class Both(Task[tuple[int, str]]):
    """Asks the engine and another service."""

    def __init__(self, text):
        self.text, self.found = text, {}

    def start(self):
        sampling = Sampling(max_tokens=2)
        return [Request(("tokens",), (1,), sampling=sampling), Question(("text",), self.text)]

    def receive(self, completion):
        self.found[completion.id[0]] = completion
        if len(self.found) == 2:
            self.result = len(self.found["tokens"].tokens), self.found["text"].text
        return []


def test_tasks_may_ask_other_services():
    echo = Echo()
    engine = ScriptedEngine(ZeroReplies(), disorder=1)
    driver = Driver(engine, {"echo": echo})
    words = ["abc", "de", "f"]
    gathered = GatherTask([GatherTask(map(Both, words)), GatherTask([Both("xyz")]), GatherTask([])])
    cancelled = driver.add(Both("never"))
    ticket = driver.add(gathered)
    driver.cancel(cancelled)
    results = {}
    while driver.pending:
        results |= dict(driver.step())
    assert results == {ticket: [[(2, "cba"), (2, "ed"), (2, "f")], [(2, "zyx")], []]}
    assert not echo.pending and not engine.pending


class Fastest(Task[int]):
    """Done with the first of its completions."""

    def __init__(self, engine):
        self.engine = engine

    def start(self):
        self.handle = self.engine.keep((1, 2, 3))
        return [
            Request((number,), (), self.handle, Sampling(max_tokens=4 + 9 * number))
            for number in range(3)
        ]

    def receive(self, completion):
        (self.result,) = completion.id
        return []

    def close(self):
        self.engine.release(self.handle)


def test_what_a_task_is_done_without_is_dropped():
    engine = make_engine()
    pages = free_pages(engine)
    assert list(run_tasks(Driver(engine), [Fastest(engine)])) == [0]
    assert not engine.pending and free_pages(engine) == pages


class Failing(Task[int]):
    def start(self):
        return [Request(("a",), (1,), sampling=Sampling(max_tokens=9))]

    def receive(self, completion):
        raise OSError("the disk is full")


def test_an_error_of_a_task_closes_the_others():
    engine = make_engine()
    tasks = [Chain(engine, 1, length=50), Failing(), Chain(engine, 2, length=50)]
    with pytest.raises(OSError, match="disk"):
        list(run_tasks(Driver(engine), tasks))
    assert not engine.pending and tasks[0].is_closed and tasks[2].is_closed


class Waiting(Task[int]):
    def start(self):
        return []

    def receive(self, completion):
        return []


def test_a_task_that_waits_for_nothing_is_an_error():
    with pytest.raises(RuntimeError, match="wait for nothing"):
        list(run_tasks(Driver(ScriptedEngine(ZeroReplies())), [Waiting()]))


def test_a_driver_wants_an_engine_of_its_own():
    engine = make_engine()
    engine.submit([Request("a", (1,), sampling=SAMPLING)])
    with pytest.raises(ValueError, match="pending"):
        Driver(engine)


def test_a_task_whose_request_is_refused_is_dropped_and_the_others_go_on():
    engine = make_engine()
    driver = Driver(engine)
    driver.add(Chain(engine, 0, length=1))
    refused = Chain(engine, 1, length=1)
    refused.start = lambda: [Request((0,), (10**6,), sampling=Sampling())]
    with pytest.raises(UserError, match="vocabulary"):
        driver.add(refused)
    assert driver.pending == 1
    while driver.pending:
        driver.step()
    assert not engine.pending
