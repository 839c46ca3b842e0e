"""Many search trees over one engine (DESIGN, "Search: the runner").

Each tree is a small state machine: free, expanding, rolling out, judging, backed up, and free
again. All trees in flight feed one engine, and each goes on as soon as its own requests are
done. The random key of a request comes from the seed, the prompt's id and the place in the tree,
so a tree is the same whatever runs beside it.

A tree with several iterations under way gets its results in the order in which they were asked
for, one a round: an early result waits for those before it, so that the tree does not depend on
which was ready first.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, EngineStats, Handle, Request, request_key
from stair_jax.search.actor import Actor, Children, Evaluated, Outcome, Reward, Room
from stair_jax.search.admission import Admission, Load
from stair_jax.search.entries import Entries, Entry
from stair_jax.search.forest import Forest, Task, find_device
from stair_jax.search.judge import Judge
from stair_jax.search.openings import Openings
from stair_jax.search.records import TreeRecord
from stair_jax.search.report import SearchReport, since
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree_data import Need
from stair_jax.text.tokenizer import Tokenizer

__all__ = ["Engine", "Progress", "SearchReport", "SearchSettings", "run_search"]


class Engine(Protocol):
    """The part of an engine that a search needs."""

    stats: EngineStats

    @property
    def pending(self) -> int: ...

    @property
    def capacity(self) -> int: ...

    @property
    def free(self) -> int: ...

    def submit(self, requests: Iterable[Request]) -> None: ...

    def step(self) -> list[Completion]: ...

    def keep(self, tokens: Iterable[int], parent: Handle | None = None) -> Handle: ...

    def shorten(self, handle: Handle, num_tokens: int) -> Handle: ...

    def release(self, handle: Handle) -> None: ...


class Progress(Protocol):
    """Who is told how far the search is."""

    def update(self, done: int, **shown: Any) -> None: ...


def run_search(
    prompts: Iterable[Prompt],
    engine: Engine,
    tokenizer: Tokenizer,
    settings: SearchSettings,
    seed: int,
    on_tree: Callable[[TreeRecord], None],
    progress: Progress | None = None,
    *,
    reward: Reward,
    trees_in_flight: int = 64,
    device: str = "host",
    model: str = "",
    fingerprint: str = "",
    done: Collection[str] = (),
) -> SearchReport:
    """Grows one tree a prompt.

    Args:
      prompts: in the order in which trees start.
      engine: with no request pending.
      tokenizer: of the model.
      settings: what the trees depend on.
      seed: of the run.
      on_tree: takes each tree as soon as it is finished.
      progress: told of finished trees.
      reward: R of helpfulness and safety.
      trees_in_flight: how many trees grow side by side at most; fewer where the engine's cache does
        not carry them. Changes cost, never a tree.
      device: where their statistics are, see `find_device`.
      model: fingerprint of the model, for the records.
      fingerprint: of the settings, for the records.
      done: ids of prompts whose trees were finished before (a resumed search).

    Returns:
      totals; prompts that cannot be searched are in `skipped`, and stop nothing: empty ones, too
      long ones, those that leave no room in the engine's context, those that repeat an id.

    Raises:
      UserError: the device is none.
    """
    judge = Judge(tokenizer, settings.judge)
    room = Room(
        engine=engine,
        tokenizer=tokenizer,
        judge=judge,
        openings=Openings(engine, judge),
        reward=reward,
        sampling=settings.sampling,
        num_children=settings.tree.num_children,
        max_depth=settings.tree.max_depth,
        prior=settings.prior,
        seed=seed,
        model=model,
        settings=fingerprint,
    )
    batch = max(1, trees_in_flight)
    forest = Forest(settings.tree, batch, find_device(device))
    admission = Admission(engine.capacity, settings.expected_tokens)
    entries = Entries(prompts, tokenizer, settings.max_prompt_tokens, done)
    search = _Search(room, engine, forest, admission, entries, batch, on_tree)
    search.run(settings.tree.num_iterations, progress, len(done))
    room.openings.close_all()
    return search.report


@dataclass
class _Growing:
    """A tree in flight.

    Attributes:
      entry: its prompt.
      actor: its texts.
      load: its requests in flight.
      order: lanes with a request, in the order in which they asked.
      ready: what has come for some of them.
      visits: of the nodes in the kernel, once the budget is used up.
      visits_left: evaluations after the budget that have not come.
    """

    entry: Entry
    actor: Actor
    load: Load
    order: deque[int] = field(default_factory=deque)
    ready: dict[int, Children | Evaluated] = field(default_factory=dict)
    visits: list[int] | None = None
    visits_left: int = 0

    @property
    def has_news(self) -> bool:
        """Whether the lane that has waited longest has what it waits for."""
        return bool(self.order) and self.order[0] in self.ready


class _Search:
    """The scheduling of trees in flight; tree `slot` of the kernel is `_trees[slot]`."""

    def __init__(
        self,
        room: Room,
        engine: Engine,
        forest: Forest,
        admission: Admission,
        entries: Entries,
        batch: int,
        on_tree: Callable[[TreeRecord], None],
    ):
        self.report = SearchReport()
        self._room, self._engine, self._forest = room, engine, forest
        self._admission, self._entries, self._on_tree = admission, entries, on_tree
        self._trees: dict[int, _Growing] = {}
        self._free_slots = list(range(batch - 1, -1, -1))
        self._with_news: set[int] = set()
        self._num_started = 0

    def run(self, iterations: int, progress: Progress | None, done: int) -> None:
        """Grows all trees."""
        report, engine = self.report, self._engine
        start, before = time.monotonic(), EngineStats(**vars(engine.stats))
        self._iterations = iterations
        while self._start_trees():
            self._advance()
            while self._trees and not self._with_news and not self._may_start():
                assert engine.pending, "the trees wait for nothing"
                for completion in engine.step():
                    self._receive(completion)
            report.seconds = time.monotonic() - start
            report.engine = since(before, engine.stats)
            if progress is not None:
                progress.update(done + report.trees, **report.shown())
        report.skipped = self._entries.skipped

    def _may_start(self) -> bool:
        """Whether another tree may start now; one may always be in flight."""
        if self._entries.next is None or not self._free_slots:
            return False
        return not self._trees or self._admission.has_room(self._engine.free)

    def _start_trees(self) -> bool:
        """Starts trees in free slots; whether any tree is in flight."""
        keys = {}
        while self._may_start():
            slot, entry = self._free_slots.pop(), self._entries.take()
            actor = Actor(self._room, entry.prompt, entry.tokens, slot, self._num_started)
            self._trees[slot] = _Growing(entry, actor, Load(self._admission))
            keys[slot] = request_key(self._room.seed, entry.prompt.id, "ties")
            self._num_started += 1
        if keys:
            self._forest.plant(keys)
        return bool(self._trees)

    def _advance(self) -> None:
        """One round of the kernel, and the requests that it asks for."""
        waiting, self._with_news = self._with_news, set()
        for slot in waiting:
            tree = self._trees[slot]
            outcome = tree.ready.pop(tree.order.popleft())
            if isinstance(outcome, Children):
                tree.actor.grow(outcome)
            self._forest.deliver(slot, outcome)
            if tree.has_news:
                self._with_news.add(slot)
        tasks, done = self._forest.advance()
        self.report.rounds += 1
        for task in tasks:
            if task.slot in self._trees:
                self._act(task)
        done = [slot for slot in done if slot in self._trees and self._trees[slot].visits is None]
        if done:
            for slot, visits in zip(done, self._forest.visits(done), strict=True):
                self._visit_unvisited(slot, visits)

    def _act(self, task: Task) -> None:
        tree = self._trees[task.slot]
        tree.order.append(task.lane)
        act = tree.actor.expand if task.need == Need.EXPAND else tree.actor.evaluate
        self._take(task.slot, act(task.node, task.lane))

    def _visit_unvisited(self, slot: int, visits: list[int]) -> None:
        """Launches the visits after the budget, all at once."""
        tree = self._trees[slot]
        tree.visits = visits
        waiting = tree.actor.unvisited()
        tree.visits_left = len(waiting)
        for node in waiting:
            self._take(slot, tree.actor.evaluate(node))
        self._close_if_finished(slot)

    def _receive(self, completion: Completion) -> None:
        assert isinstance(completion.id, tuple)
        slot = completion.id[0]
        tree = self._trees[slot]
        tree.load.completed(completion)
        outcome = tree.actor.receive(completion)
        if not tree.actor.no_room:
            self._take(slot, outcome)
            self._close_if_finished(slot)
        elif not len(tree.load):
            self._entries.skip(
                tree.entry.place, tree.entry.prompt, "prompt leaves no room in the context"
            )
            self._remove(slot, finished=False)

    def _take(self, slot: int, outcome: Outcome) -> None:
        """Submits requests, or keeps what is complete for the kernel; late visits are counted."""
        tree = self._trees[slot]
        if isinstance(outcome, list):
            for request in outcome:
                tree.load.submitted(request)
            self._engine.submit(outcome)
        elif tree.visits is not None:
            tree.visits_left -= 1
        else:
            tree.ready[outcome.lane] = outcome
            if tree.has_news:
                self._with_news.add(slot)

    def _close_if_finished(self, slot: int) -> None:
        """Hands a finished tree over."""
        tree = self._trees[slot]
        if tree.visits is None or tree.visits_left:
            return
        record = tree.actor.record(tree.visits, self._iterations)
        self._remove(slot, finished=True)
        report = self.report
        report.trees += 1
        report.counts.update(record.counts)
        report.generated_tokens += record.generated_tokens
        report.prefilled_tokens += record.prefilled_tokens
        self._on_tree(record)

    def _remove(self, slot: int, finished: bool) -> None:
        """Frees the slot of a tree without requests."""
        tree = self._trees.pop(slot)
        tree.actor.release()
        tree.load.close(finished)
        self._free_slots.append(slot)
        self._with_news.discard(slot)
