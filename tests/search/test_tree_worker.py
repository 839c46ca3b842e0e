"""Workers of a search in this process, killed at random: the trees are those of one search."""

import random
from itertools import chain

import pytest

from stair_jax.cluster.dealer import Dealer
from stair_jax.cluster.pool import Came, Lost
from stair_jax.cluster.work import Order, Report
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.probe import run_probe
from stair_jax.search.judging.probe_cases import ProbeCase
from stair_jax.search.judging.probing_worker import PROBE, Probe, ProbingWorker
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.runner import make_queue, run_search
from stair_jax.search.search_task import SearchOptions, SearchTask
from stair_jax.search.tree_worker import TreeWorker
from stair_jax.settings import build
from stair_jax.stages import Search

SETTINGS = build(
    Search,
    {
        "num_iterations": 12,
        "num_children": 3,
        "max_depth": 3,
        "max_step_tokens": 60,
        "max_answer_tokens": 300,
        "judge": {"mode": "expected", "helpfulness_prompts": ("helpfulness", "safety")},
    },
    "config.search",
).search_settings
PROMPTS = [Prompt(f"p{i}", f"question {i}?", "safety", "test") for i in range(10)]
PROMPTS[3:3] = [Prompt("empty", " ", "safety", "test")]
CASES = [ProbeCase("question?", "safety", "answer", 1, 1)]


@pytest.fixture
def make_worker(tokenizer, make_engine):
    def make(disorder=1, **limits):
        engine = make_engine(disorder=disorder, **limits)

        def make_task(queue, calibrate):
            options = SearchOptions(reward=SafetyReward(), trees_in_flight=3, calibrate=calibrate)
            return SearchTask(queue, engine, tokenizer, SETTINGS, 3, None, options)

        driver, judge = Driver(engine), Judge(tokenizer, SETTINGS.judge)
        return ProbingWorker(
            TreeWorker(driver, make_task), lambda cases: run_probe(judge, driver, cases, 3)
        )

    return make


class KilledPool:
    """Two workers that answer in turn, and are killed with a chance at each answer."""

    def __init__(self, make, seed, chance):
        self.make, self.random, self.chance = make, random.Random(seed), chance
        self.kills = 0
        self.workers, self.orders, self.news = {}, {}, []
        self.boot("a"), self.boot("b")

    def boot(self, name):
        self.workers[name] = self.make(disorder=self.random.randrange(4))
        self.news.append(Came(name, Report(wants=1)))

    def names(self):
        return self.workers.keys()

    def send(self, worker, order):
        self.orders[worker] = order

    def wait(self, seconds):
        if self.news:
            return [self.news.pop()]
        name = self.random.choice(sorted(self.orders))
        order = self.orders.pop(name)
        report = self.workers[name].exchange(order, 0.0)
        if self.random.random() < self.chance:
            self.kills += 1
            del self.workers[name]
            self.boot(name.translate(str.maketrans("ab", "ba")) * 2)
            return [Lost(name, "killed")]
        return [Came(name, report)]


def plain(tree):
    return tree.to_dict() | {"seconds": None}


@pytest.fixture
def expected(tokenizer, make_engine):
    trees = {}

    def keep(tree):
        trees[tree.id] = plain(tree)

    options = {"reward": SafetyReward(), "trees_in_flight": 8}
    report = run_search(PROMPTS, make_engine(), tokenizer, SETTINGS, 3, keep, **options)
    return trees, report


@pytest.mark.parametrize(("seed", "chance"), [(0, 0.0), (1, 0.02), (2, 0.05)])
def test_no_tree_is_lost_and_each_is_that_of_one_search(
    tokenizer, make_worker, expected, seed, chance
):
    pool, found = KilledPool(make_worker, seed, chance), {}
    queue = make_queue(PROMPTS, tokenizer, SETTINGS)
    items = iter(queue.take, None)
    work = WorkQueue(items, lambda queued: queued.prompt.id, lambda queued: len(queued.tokens))

    for _, id, outcome in chain.from_iterable(Dealer(pool).deal(work)):
        assert id not in found and outcome.tree.id == id
        found[id] = plain(outcome.tree)
    assert found == expected[0]
    assert queue.skipped == expected[1].skipped == [("empty", "empty prompt")]
    assert bool(pool.kills) == bool(chance)


def test_a_prompt_without_room_gets_no_tree_from_a_worker(tokenizer, make_worker):
    worker, queue = make_worker(max_length=12), make_queue(PROMPTS[:1], tokenizer, SETTINGS)
    reports = [worker.exchange(Order([queue.take()], is_last=True), 0.5)]
    while not reports[-1].finished:
        reports.append(worker.exchange(Order(is_last=True), 0.5))
    ((id, outcome),) = reports[-1].finished
    assert (id, outcome.tree, outcome.place) == ("p0", None, 0)
    assert "no room" in outcome.skipped


def test_a_worker_probes_the_judge_before_it_searches(make_worker):
    ((id, result),) = make_worker().exchange(Order([Probe(CASES)]), 0.5).finished
    assert id == PROBE and len(result.judgements) == 1


def test_a_worker_without_work_answers_soon_and_asks_for_some(make_worker):
    report = make_worker().exchange(Order(), 0.01)
    assert report == Report(wants=1)
