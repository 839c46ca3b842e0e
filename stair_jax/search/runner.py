"""Many search trees over one engine (DESIGN, "Search: the runner").

Each tree is a small state machine: free, expanding, rolling out, judging, backed up, and free
again. All trees in flight feed one engine, and each goes on as soon as its own requests are
done. The random key of a request comes from the seed, the prompt's id and the place in the tree,
so a tree is the same whatever runs beside it.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.data.prompts import Prompt
from stair_jax.decoding.requests import Completion, Handle, Request, request_key
from stair_jax.errors import UserError
from stair_jax.search import tree as kernel
from stair_jax.search.actor import PRIORS, Actor, Children, Reward, Room, SamplingSettings
from stair_jax.search.judge import Judge, JudgeSettings
from stair_jax.search.records import TreeRecord
from stair_jax.search.tree_data import Delivery, Need, SearchConfig
from stair_jax.settings import read_settings
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer


class Engine(Protocol):
    """The part of an engine that a search needs."""

    @property
    def pending(self) -> int: ...

    def submit(self, requests: Iterable[Request]) -> None: ...

    def step(self) -> list[Completion]: ...

    def release(self, handle: Handle) -> None: ...


class Progress(Protocol):
    """Who is told how far the search is."""

    def update(self, done: int, **shown: Any) -> None: ...


@dataclass(frozen=True)
class SearchSettings:
    """Everything that a tree depends on, beside the prompt, the model and the seed.

    Attributes:
      tree: see `SearchConfig`; its fields stand in the section itself.
      sampling: see `SamplingSettings`; its fields stand in the section itself.
      judge: see `JudgeSettings`.
      prior: of a step, the mean token probability: "arithmetic", "geometric", or "uniform" (1).
      max_prompt_tokens: rendered; longer prompts are left out.
    """

    tree: SearchConfig = field(default_factory=SearchConfig)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    prior: str = "arithmetic"
    max_prompt_tokens: int = 2048

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise UserError(f"prior {self.prior!r} is none of {', '.join(PRIORS)}")

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> "SearchSettings":
        """Reads a flat config section, whose one sub-section is `judge`.

        Raises:
          UserError: an unknown field, or a value out of range.
        """
        section = dict(section)
        judge = read_settings(JudgeSettings, section.pop("judge", {}), "judge")
        parts: dict[str, Any] = {}
        for name, part in (("tree", SearchConfig), ("sampling", SamplingSettings)):
            known = {f.name for f in fields(part)} & section.keys()
            parts[name] = part(**{key: section.pop(key) for key in known})
        return read_settings(cls, section | parts | {"judge": judge}, "search")


@dataclass
class SearchReport:
    """What a search did, this time."""

    trees: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (prompt id, reason)
    counts: Counter[str] = field(default_factory=Counter)  # summed over the trees
    generated_tokens: int = 0
    prefilled_tokens: int = 0
    rounds: int = 0
    seconds: float = 0.0


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
    model: str = "",
    fingerprint: str = "",
    done: int = 0,
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
      trees_in_flight: how many trees grow side by side; changes cost, never a tree.
      model: fingerprint of the model, for the records.
      fingerprint: of the settings, for the records.
      done: trees finished before (a resumed search), for the progress.

    Returns:
      totals; prompts that are empty, too long, or repeat an id are in `skipped`.
    """
    room = Room(
        release=engine.release,
        tokenizer=tokenizer,
        judge=Judge(tokenizer, settings.judge),
        reward=reward,
        sampling=settings.sampling,
        num_children=settings.tree.num_children,
        prior=settings.prior,
        seed=seed,
        model=model,
        settings=fingerprint,
    )
    report = SearchReport()
    usable = _usable(prompts, tokenizer, settings.max_prompt_tokens, report.skipped)
    search = _Search(room, settings.tree, engine, max(1, trees_in_flight), report, on_tree)
    search.run(usable, progress, done)
    return report


def _usable(
    prompts: Iterable[Prompt],
    tokenizer: Tokenizer,
    max_tokens: int,
    skipped: list[tuple[str, str]],
) -> Iterator[tuple[Prompt, list[int]]]:
    """The prompts that can be searched, rendered; the others are written to `skipped`."""
    seen: set[str] = set()
    for prompt in prompts:
        tokens = encode_prompt(tokenizer, prompt.prompt)
        if prompt.id in seen:
            skipped.append((prompt.id, "duplicate id"))
        elif not prompt.prompt.strip():
            skipped.append((prompt.id, "empty prompt"))
        elif len(tokens) > max_tokens:
            skipped.append((prompt.id, "prompt too long"))
        else:
            yield prompt, tokens
        seen.add(prompt.id)


class _Search:
    """The scheduling of trees in flight; tree `slot` of the kernel is `_actors[slot]`."""

    def __init__(
        self,
        room: Room,
        config: SearchConfig,
        engine: Engine,
        batch: int,
        report: SearchReport,
        on_tree: Callable[[TreeRecord], None],
    ):
        self._room, self._config, self._engine = room, config, engine
        self._report, self._on_tree = report, on_tree
        self._batch = batch
        self._actors: dict[int, Actor] = {}
        self._visits_left: dict[int, set[int]] = {}  # of trees whose budget is used up
        self._kernel_visits: dict[int, list[int]] = {}
        self._delivery = Delivery.empty(config, batch)
        self._trees = kernel.init(config, _tree_keys(np.zeros((batch, 2), np.uint32)))
        self._start = time.monotonic()

    def run(
        self,
        prompts: Iterator[tuple[Prompt, list[int]]],
        progress: Progress | None,
        done: int,
    ) -> None:
        """Grows all trees."""
        while self._fill(prompts):
            self._advance()
            while self._actors and not self._can_advance():
                for completion in self._engine.step():
                    self._receive(completion)
            self._report.seconds = time.monotonic() - self._start
            if progress is not None:
                progress.update(done + self._report.trees, **self._shown())

    def _can_advance(self) -> bool:
        """Whether a tree waits for the kernel, or a slot for a prompt."""
        delivered = self._delivery.expanded.any() or self._delivery.rewarded.any()
        return bool(delivered) or self._slot_is_free

    def _fill(self, prompts: Iterator[tuple[Prompt, list[int]]]) -> bool:
        """Starts trees in free slots; whether any tree is in flight."""
        free = [slot for slot in range(self._batch) if slot not in self._actors]
        started = list(zip(free, itertools.islice(prompts, len(free)), strict=False))
        self._slot_is_free = False
        if started:
            words = np.zeros((self._batch, 2), np.uint32)
            mask = np.zeros(self._batch, bool)
            for slot, (prompt, tokens) in started:
                self._actors[slot] = Actor(self._room, prompt, tokens, slot)
                words[slot] = request_key(self._room.seed, prompt.id, "ties")
                mask[slot] = True
            self._trees = kernel.restart(self._config, self._trees, _tree_keys(words), mask)
        return bool(self._actors)

    def _advance(self) -> None:
        """One round of the kernel, and the requests that it asks for."""
        self._trees, selection = kernel.advance(self._config, self._trees, self._delivery)
        self._report.rounds += 1
        self._delivery = Delivery.empty(self._config, self._batch)
        nodes, needs = np.asarray(selection.node), np.asarray(selection.need)
        finished = []
        for slot in np.flatnonzero(needs != Need.WAIT).tolist():
            if slot not in self._actors or slot in self._visits_left:
                continue
            if needs[slot] == Need.DONE:
                finished.append(slot)
            else:
                self._act(slot, int(nodes[slot]), int(needs[slot]))
        if finished:
            visits = np.array(self._trees.visits)  # a copy: the kernel reuses its buffers
            for slot in finished:
                self._visit_unvisited(slot, visits[slot].tolist())

    def _act(self, slot: int, node: int, need: int) -> None:
        actor = self._actors[slot]
        if need == Need.EXPAND:
            self._take(slot, actor.expand(node))
        else:
            self._take_evaluation(slot, node, actor.evaluate(node))

    def _visit_unvisited(self, slot: int, visits: list[int]) -> None:
        """Launches the visits after the budget, all at once."""
        actor = self._actors[slot]
        self._kernel_visits[slot] = visits
        waiting = actor.unvisited()
        self._visits_left[slot] = set(waiting)
        for node in waiting:
            self._take_evaluation(slot, node, actor.evaluate(node))
        self._close_if_finished(slot)

    def _receive(self, completion: Completion) -> None:
        assert isinstance(completion.id, tuple)
        slot = completion.id[0]
        outcome = self._actors[slot].receive(completion)
        if isinstance(outcome, tuple):
            self._take_evaluation(slot, *outcome)
            self._close_if_finished(slot)
        else:
            self._take(slot, outcome)

    def _take(self, slot: int, outcome: list[Request] | Children) -> None:
        """Submits requests, or delivers a finished expansion to the kernel."""
        if isinstance(outcome, list):
            self._engine.submit(outcome)
            return
        count = len(outcome.priors)
        expansion = self._delivery.expansion
        self._delivery.expanded[slot] = True
        expansion.num_children[slot] = count
        expansion.prior[slot, :count] = outcome.priors
        expansion.is_terminal[slot, :count] = outcome.terminal

    def _take_evaluation(self, slot: int, node: int, outcome: list[Request] | float) -> None:
        """Submits requests, or takes a reward: for the kernel, or for a visit after the budget."""
        if isinstance(outcome, list):
            self._engine.submit(outcome)
        elif slot in self._visits_left:
            self._visits_left[slot].discard(node)
        else:
            self._delivery.rewarded[slot] = True
            self._delivery.reward[slot] = outcome

    def _close_if_finished(self, slot: int) -> None:
        """Hands a finished tree over and frees its slot."""
        if self._visits_left.get(slot, {slot}):
            return
        actor = self._actors.pop(slot)
        del self._visits_left[slot]
        actor.release()
        record = actor.record(self._kernel_visits.pop(slot), self._config.num_iterations)
        self._slot_is_free = True
        self._report.trees += 1
        self._report.counts.update(record.counts)
        self._report.generated_tokens += record.generated_tokens
        self._report.prefilled_tokens += record.prefilled_tokens
        self._on_tree(record)

    def _shown(self) -> dict[str, Any]:
        report = self._report
        seconds = max(report.seconds, 1e-9)
        return {
            "trees/h": round(3600 * report.trees / seconds),
            "tokens/s": round(report.generated_tokens / seconds),
            "missing": report.counts["missing"],
            "unreadable": report.counts["unreadable"],
        }


def _tree_keys(words: np.ndarray) -> jax.Array:
    """Typed keys [B] of two words each, for ties."""
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
