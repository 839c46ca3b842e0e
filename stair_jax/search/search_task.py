"""The trees of a search as one task: rounds of the jitted search, and the requests between them.

Each tree is a state machine (select, expand or roll out, judge, back up) that continues as soon as
its own requests are done; it never waits for the longest text of a batch. The random key of a
request is derived from the seed, the prompt's id and the position in the tree, so that a tree does
not depend on what runs beside it.

A tree with several iterations in flight receives their results in the order in which they were
requested, one per round: a result that is ready early waits for the ones before it. Otherwise the
tree would depend on which result happened to be ready first.
"""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stair_jax.decoding.requests import Completion, EngineStats, Request, request_key
from stair_jax.decoding.task import Service, Task
from stair_jax.parallel.compile_clock import compile_seconds
from stair_jax.search.actor import Actor, Children, Evaluated, Outcome, Reward, SearchContext
from stair_jax.search.admission import Admission, Load
from stair_jax.search.batched_trees import BatchedTrees, LaneTask, find_device
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.prefixes import JudgePrefixes, Keeper
from stair_jax.search.judging.sources.source import Source
from stair_jax.search.judging.watch import JudgeWatch
from stair_jax.search.prompt_queue import TreeQueue
from stair_jax.search.search_report import SearchReport, since
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree import ROOT, Need
from stair_jax.search.tree_in_flight import TreeInFlight
from stair_jax.search.tree_samples import TreeSamples, tree_samples
from stair_jax.text.tokenizer import Tokenizer


class EngineProtocol(Keeper, Service, Protocol):
    """The part of `decoding.engine.Engine` that a search needs."""

    stats: EngineStats

    @property
    def capacity(self) -> int: ...

    @property
    def free(self) -> int: ...


class ProgressListener(Protocol):
    """Receives the numbers of finished trees and of iterations (see `monitoring.Progress`)."""

    def update(self, done: int, *, done_parts: int = 0, **shown: Any) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a search needs beside prompts, engine, settings and seed.

    Attributes:
      reward: (helpfulness, safety) -> R.
      trees_in_flight: most trees that are searched at once; fewer if the engine's cache has no room
        for them. Affects the cost, not the trees.
      device: where the tree statistics are kept, see `find_device`.
      model: fingerprint of the model, for the records.
      fingerprint: of the settings, for the records.
      done: ids of prompts whose trees are finished already (of a resumed search).
      services: that the judge asks beside the engine, by name.
      report: what the totals are put into, to be read while the search goes on; None: a new one.
      samples: of which trees text samples are taken; None: of none.
      sources: of scores that need more than the settings, see `Judge`.
      calibrate: what becomes of the scores of the judge; None: nothing.
      watch: stops the search where the judgements have become of no use.
    """

    reward: Reward
    trees_in_flight: int = 64
    device: str = "host"
    model: str = ""
    fingerprint: str = ""
    done: Collection[str] = ()
    services: Mapping[str, Service] | None = None
    report: SearchReport | None = None
    samples: TreeSamples | None = None
    sources: Mapping[str, Source] | None = None
    calibrate: Calibrator | None = None
    watch: JudgeWatch | None = None


class SearchTask(Task[SearchReport]):
    """The trees of a search as one task; `_trees[slot]` is tree `slot` of the batch.

    The ids of its requests are `(slot, node, what, visit, ...)`, see `actor.py`.
    """

    def __init__(
        self,
        queue: TreeQueue,
        engine: EngineProtocol,
        tokenizer: Tokenizer,
        settings: SearchSettings,
        seed: int,
        progress: ProgressListener | None,
        options: SearchOptions,
    ):
        """A search that has not begun; see `run_search`."""
        judge = Judge(tokenizer, settings.judge, options.sources, options.calibrate)
        self._context = SearchContext(
            engine=engine,
            tokenizer=tokenizer,
            judge=judge,
            judge_prefixes=JudgePrefixes(engine, judge, options.services),
            reward=options.reward,
            sampling=settings.sampling,
            num_children=settings.tree.num_children,
            root_children=settings.tree.root_children,
            max_depth=settings.tree.max_depth,
            prior=settings.prior,
            seed=seed,
            model=options.model,
            settings=options.fingerprint,
            watch=options.watch,
            more_pairs=settings.more_pairs,
        )
        batch = max(1, options.trees_in_flight)
        self.report = options.report or SearchReport()
        self._engine, self._queue, self._progress = engine, queue, progress
        self._batched_trees = BatchedTrees(settings.tree, batch, find_device(options.device))
        self._admission = Admission(engine.capacity, settings.expected_tokens)
        self._budget, self._samples = settings.tree.num_iterations, options.samples
        self._give_up_after = settings.give_up_after
        self._num_done_before = len(options.done)
        self._num_iterations = 0  # of finished trees
        self._trees: dict[int, TreeInFlight] = {}
        self._free_slots = list(range(batch - 1, -1, -1))
        self._with_news: set[int] = set()
        self._requests: list[Request] = []  # to be returned by the method that is running
        self._num_started = self._num_at_budget = 0

    def start(self) -> list[Request]:
        """Requests of the first trees."""
        self._start_time = time.monotonic()
        self._stats_before = EngineStats(**vars(self._engine.stats))
        self._compiled_before = compile_seconds()
        return self.advance()

    def receive(self, completion: Completion) -> list[Request]:
        """Brings a completion to its tree; a result waits for the next round of the trees."""
        assert isinstance(completion.id, tuple)
        slot = completion.id[0]
        tree = self._trees[slot]
        tree.load.completed(completion)
        outcome = tree.actor.receive(completion)
        if tree.actor.no_room:
            tree.skipped = "prompt leaves no room in the context"
        if tree.skipped:
            if isinstance(outcome, Children):
                tree.actor.grow(outcome)  # so that its handles are found
            self._remove_if_skipped(slot)
        else:
            self._take(slot, outcome)
            for evaluated in tree.actor.take_told():
                self._take(slot, evaluated)
            self._close_if_finished(slot)
        return self._take_requests()

    def advance(self) -> list[Request]:
        """Rounds of the jitted search, as long as one has something to do; starts trees."""
        while self._with_news or self._may_start():
            self._start_trees()
            self._advance_trees()
            self._show()
        if not self._trees and self._queue.is_exhausted:
            self._show()
            self.report.skipped = self._queue.skipped
            self.result = self.report
        return self._take_requests()

    def close(self) -> None:
        """Gives back the handles of all trees."""
        for slot in list(self._trees):
            self._remove(slot, finished=False)
        self._context.judge_prefixes.close_all()

    def _show(self) -> None:
        report = self.report
        report.seconds = time.monotonic() - self._start_time
        report.compile_seconds = compile_seconds() - self._compiled_before
        report.engine = since(self._stats_before, self._engine.stats)
        growing = self._batched_trees.iterations(self._trees)
        report.iterations = self._num_iterations + growing
        if self._progress is not None:
            # A tree that ended early has nothing left to do.
            parts = report.trees * self._budget + growing
            done = self._num_done_before + report.trees
            self._progress.update(done, done_parts=parts, **report.shown())

    def _take_requests(self) -> list[Request]:
        requests, self._requests = self._requests, []
        return requests

    @property
    def num_trees(self) -> int:
        """Number of trees in flight."""
        return len(self._trees)

    @property
    def num_free(self) -> int:
        """Number of trees that may still start, as far as the slots go."""
        return len(self._free_slots)

    @property
    def has_room(self) -> bool:
        """Whether another tree fits now; one tree is always admitted, so that all finish."""
        if not self._free_slots:
            return False
        return not self._trees or self._admission.has_room(self._engine.free)

    def _may_start(self) -> bool:
        return self._queue.next is not None and self.has_room

    @property
    def _is_last_wave(self) -> bool:
        """Whether trees go first by what they have left to do, and not by their age.

        No tree follows those in flight, so the search ends with the slowest of them: its iterations
        come one after another. The visits after the budget, which do not, can fill the slots that
        are left. But a tree that is done later gives its cache back later: only as long as that
        has been large enough.
        """
        evicted = self._engine.stats.evicted - self._stats_before.evicted
        return self._queue.is_dealt and not evicted

    def _start_trees(self) -> None:
        """Starts as many trees as are admitted."""
        keys = {}
        while self._may_start():
            slot, queued = self._free_slots.pop(), self._queue.take()
            assert queued is not None
            actor = Actor(
                self._context, queued.prompt, queued.tokens, slot, self._num_started, queued.start
            )
            self._trees[slot] = TreeInFlight(queued, actor, Load(self._admission))
            if self._samples is not None and self._samples.wants(queued.place):
                actor.replies = {}
            keys[slot] = request_key(self._context.seed, queued.prompt.id, "ties")
            self._num_started += 1
        if keys:
            self._batched_trees.reset(keys)

    def _advance_trees(self) -> None:
        """One round of the jitted search, and the requests that it asks for."""
        waiting, self._with_news = self._with_news, set()
        for slot in waiting:
            tree = self._trees[slot]
            outcome = tree.ready.pop(tree.order.popleft())
            if isinstance(outcome, Children):
                tree.actor.grow(outcome)
            else:
                self._count_reward(tree, outcome)
            self._batched_trees.deliver(slot, outcome)
            if tree.has_news:
                self._with_news.add(slot)
            self._remove_if_skipped(slot)
        tasks, done = self._batched_trees.advance()
        self.report.rounds += 1
        for task in tasks:
            # Free slots hold trees that ask for things too.
            if self._is_growing(task.slot) and not self._trees[task.slot].stops:
                self._act(task)
        growing = [slot for slot in sorted({*done, *waiting}) if self._is_growing(slot)]
        ended = set(done)
        done = [slot for slot in growing if slot in ended or self._trees[slot].has_stopped]
        if done:
            for slot, visits in zip(done, self._batched_trees.visits(done), strict=True):
                self._visit_unvisited(slot, visits)

    def _is_growing(self, slot: int) -> bool:
        tree = self._trees.get(slot)
        return tree is not None and tree.visits is None and not tree.skipped

    def _count_reward(self, tree: TreeInFlight, outcome: Evaluated) -> None:
        """Ends a tree whose ranking is settled; gives one up whose first evaluations had no reward.

        They count in the order of delivery, which does not depend on what else is running.
        """
        if not math.isnan(outcome.reward):
            tree.rewards.append(outcome.reward)
            tree.stops |= self._context.more_pairs.stops(tree.rewards)
        elif not tree.rewards:
            tree.unrewarded += 1
            if tree.unrewarded == self._give_up_after:
                tree.skipped = f"no reward in {tree.unrewarded} evaluations"

    def _remove_if_skipped(self, slot: int) -> None:
        tree = self._trees[slot]
        if tree.skipped and not len(tree.load):
            self._queue.skip(tree.queued.place, tree.queued.prompt, tree.skipped)
            self._remove(slot, finished=False)

    def _act(self, task: LaneTask) -> None:
        tree = self._trees[task.slot]
        tree.order.append(task.lane)
        if self._is_last_wave:
            tree.actor.priority = task.iterations
        act = tree.actor.expand if task.need == Need.EXPAND else tree.actor.evaluate
        self._take(task.slot, act(task.node, task.lane))

    def _visit_unvisited(self, slot: int, visits: list[int]) -> None:
        """Requests the visits after the budget, all at once: nothing depends on their order."""
        tree = self._trees[slot]
        tree.visits = visits
        if self._is_last_wave:
            tree.actor.priority = self._budget + self._num_at_budget
        self._num_at_budget += 1
        waiting = tree.actor.final_visits(visits)
        tree.visits_left = len(waiting)
        for node in waiting:
            self._take(slot, tree.actor.evaluate(node))
        self._close_if_finished(slot)

    def _take(self, slot: int, outcome: Outcome) -> None:
        """Submits requests, or stores a complete result for delivery.

        Results of the visits after the budget are only counted: the actor has recorded them, and
        the jitted search is done.
        """
        tree = self._trees[slot]
        if isinstance(outcome, list):
            for request in outcome:
                tree.load.submitted(request)
            self._requests += outcome
            return
        self.report.judgements += isinstance(outcome, Evaluated) and outcome.judged
        if tree.visits is not None:
            tree.visits_left -= 1
        else:
            tree.ready[outcome.lane] = outcome
            if tree.has_news:
                self._with_news.add(slot)

    def _close_if_finished(self, slot: int) -> None:
        """Passes a tree on if its visits after the budget are complete."""
        tree = self._trees[slot]
        if tree.visits is None or tree.visits_left:
            return
        # Each iteration is a visit of the root.
        record = tree.actor.record(tree.visits, iterations=tree.visits[ROOT])
        self._remove(slot, finished=True)
        self.report.add(record)
        self._num_iterations += record.iterations
        if self._samples is not None and tree.actor.replies is not None:
            self._samples.write(tree_samples(record, tree.actor.replies))
        self._queue.finish(record.id, record)

    def _remove(self, slot: int, finished: bool) -> None:
        """Frees the slot of a tree that has no request in flight."""
        tree = self._trees.pop(slot)
        for outcome in tree.ready.values():
            if isinstance(outcome, Children):
                tree.actor.grow(outcome)  # so that its handles are found
        tree.actor.release()
        tree.load.close(finished)
        self._free_slots.append(slot)
        self._with_news.discard(slot)
