"""Greedy coordinate gradient: a suffix found by gradients (arXiv 2307.15043).

A search is a service of the driver, one step of it a call: the driver looks whether the devices are
done with the last step, and never waits for one, so that a model that answers meanwhile goes on.
"""

import random
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.decoding.requests import request_key
from stair_jax.decoding.task import Service, Task, TaskGroup
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks.attack import Attack, Means, Tried
from stair_jax.evaluation.attacks.gcg_step import GcgProblem, gcg_step, shape_of
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.attacks.suffix_settings import GcgSettings
from stair_jax.evaluation.attacks.suffixes import SuffixSpace
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked, Weights

GCG_SERVICE = "gcg"

# Searches side by side: while the host looks at the candidates of one, the device has the other.
_SIDE_BY_SIDE = 2
# Tokens of the candidates that are computed at once.
_BATCH_TOKENS = {"cpu": 4096, "accelerator": 32768}

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Gcg(Attack):
    """A suffix by gradients, then the chat with it."""

    NAME = "gcg"
    NEEDS = frozenset({"weights"})
    PAPER = "2307.15043"

    settings: GcgSettings = field(default_factory=GcgSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.gcg)

    def services(self, means: Means) -> Mapping[str, Service]:
        """What searches, with the weights of the target."""
        return {GCG_SERVICE: GcgService(means.target.weights())}

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """The best suffixes after so many steps are asked, each once."""
        return GcgTask(self.settings, case, means)


@dataclass(frozen=True)
class GcgRequest:
    """A suffix to look for.

    Attributes:
      id: identifies the completion.
      space: the chat, and which suffixes can be sent as text.
      form: ids that the answer has before the target; they are given, not scored.
      target: ids that are made likely.
      settings: of the search.
      key: two uint32 words, the random key.
      service: name of the service.
    """

    id: Hashable
    space: SuffixSpace
    form: Ids
    target: Ids
    settings: GcgSettings
    key: tuple[int, int]
    service: str = GCG_SERVICE


@dataclass(frozen=True)
class Found:
    """The best suffix after so many steps; its loss is in nats a token of the target."""

    step: int
    suffix: Ids
    loss: float


@dataclass(frozen=True)
class GcgCompletion:
    """What a search found.

    Attributes:
      id: of the request.
      found: whenever it was to be looked at, if it was another than before; the last is the best.
    """

    id: Hashable
    found: tuple[Found, ...]


class GcgService:
    """Searches, a few side by side."""

    def __init__(self, weights: Weights):
        """An idle service."""
        self._weights = weights
        self._waiting: list[GcgRequest] = []
        self._running: list[_Search] = []

    @property
    def pending(self) -> int:
        """Number of searches that are not done."""
        return len(self._waiting) + len(self._running)

    def submit(self, requests: Iterable[GcgRequest]) -> None:
        """Queues searches."""
        self._waiting += requests

    def step(self) -> list[GcgCompletion]:
        """Begins the next step of each search whose last one is done."""
        while self._waiting and len(self._running) < _SIDE_BY_SIDE:
            self._running.append(_Search(self._weights, self._waiting.pop(0)))
        done = [search for search in self._running if search.go_on()]
        self._running = [search for search in self._running if search not in done]
        return [GcgCompletion(search.request.id, tuple(search.found)) for search in done]

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops searches."""
        dropped = set(ids)
        self._waiting = [request for request in self._waiting if request.id not in dropped]
        self._running = [one for one in self._running if one.request.id not in dropped]


class _Search:
    """One search.

    Attributes:
      request: that it is for.
      found: see `GcgCompletion`.
    """

    def __init__(self, weights: Weights, request: GcgRequest):
        """Dispatches the scoring of the first suffix."""
        self.request, self._weights = request, weights
        self.found: list[Found] = []
        settings, space = request.settings, request.space
        tail = (*space.after, *request.form, *request.target)
        kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        self._shape = shape_of(
            weights.config,
            len(space.before),
            settings.length,
            len(tail),
            len(request.target),
            settings.candidates,
            min(settings.top_k, len(space.allowed) - 1),
            _BATCH_TOKENS[kind],
        )
        allowed = np.zeros(weights.config.vocab_size, bool)
        allowed[list(space.allowed)] = True
        self._problem = GcgProblem(
            _padded(space.before, self._shape.before),
            jnp.int32(len(space.before)),
            _padded(tail, self._shape.tail),
            jnp.int32(len(tail)),
            jnp.int32(len(request.target)),
            jnp.asarray(allowed),
        )
        self._key = jax.random.wrap_key_data(jnp.array(request.key, jnp.uint32))
        self._steps = 0
        self._suffix = space.start  # the best of the last step
        self._best = Found(0, space.start, float("inf"))
        self._dispatch(np.tile(np.array(space.start, np.int32), (settings.candidates, 1)), 1)

    def go_on(self) -> bool:
        """Reads the last step if it is there, and dispatches the next; True at the end."""
        if not self._result.losses.is_ready():
            return False
        settings = self.request.settings
        best = int(self._result.best)
        self._suffix = tuple(self._candidates[best].tolist())
        loss = float(self._result.losses[best])
        if loss < self._best.loss:
            self._best = Found(self._steps, self._suffix, loss)
        is_end = self._steps == settings.steps or self._best.loss <= settings.enough
        if is_end or (settings.ask_every and self._steps and not self._steps % settings.ask_every):
            self._note()
        if is_end:
            return True
        self._steps += 1
        self._dispatch(np.asarray(self._result.candidates))
        return False

    def _dispatch(self, candidates: np.ndarray, most: int | None = None) -> None:
        """Scores candidates, at most the first `most`, and only those that can be sent as text."""
        kept = [self.request.space.is_kept(row) for row in candidates[:most].tolist()]
        counted = np.zeros(len(candidates), bool)
        counted[: len(kept)] = kept
        if not counted.any():  # draws again around the same suffix
            candidates = candidates.copy()
            candidates[0], counted[0] = self._suffix, True
        self._candidates = candidates
        # Of jax.Arrays, whose stub lacks `is_ready`.
        self._result: Any = gcg_step(
            self._weights.config,
            self._shape,
            self._weights.params,
            self._problem,
            jnp.asarray(candidates),
            jnp.asarray(counted),
            jax.random.fold_in(self._key, self._steps),
        )

    def _note(self) -> None:
        """Keeps the best suffix, unless it is the one that was kept last."""
        if not self.found or self.found[-1].suffix != self._best.suffix:
            self.found.append(self._best)


class GcgTask(Task[list[Tried]]):
    """A search, then the answers to the chats with what it found."""

    def __init__(self, settings: GcgSettings, case: Case, means: Means):
        """A task that has asked nothing yet.

        Raises:
          UserError: the target does not show its tokens, no suffix can be sent as text, or the
            target text has no tokens.
        """
        self._case, self._means = case, means
        tokens = means.target.chat_tokens()
        name = f"{Gcg.NAME}/{case.id}"
        draw = random.Random(f"{means.seed}/{name}")
        self._space = SuffixSpace(tokens, case.messages, settings.length, draw)
        form, target = tokens.begin(settings.target_of(case), settings.place)
        if len(self._space.allowed) < 2:
            raise UserError("the tokenizer has too few printable tokens to look for a suffix")
        key = request_key(means.seed, name)
        self._request = GcgRequest(("search",), self._space, form, target, settings, key)
        self._group = TaskGroup()
        self._asked: list[Asked] = []

    def start(self) -> list[Any]:
        """The search."""
        return [self._request]

    def receive(self, completion: Any) -> list[Any]:
        """Asks what was found, side by side, and gathers the answers."""
        if isinstance(completion, GcgCompletion):
            return self._ask(completion)
        requests = self._group.receive(completion)
        if self._group.done:
            replies = (self._group.results[number] for number in range(len(self._asked)))
            self.result = [
                Tried(asked, reply, reply.final)
                for asked, reply in zip(self._asked, replies, strict=True)
            ]
        return requests

    def close(self) -> None:
        """Closes what is not done."""
        self._group.close()

    def _ask(self, completion: GcgCompletion) -> list[Any]:
        requests, target = [], self._means.target
        for number, found in enumerate(completion.found):
            label = f"step {found.step}, loss {found.loss:.3f}"
            self._asked.append(Asked(self._space.messages(found.suffix), label=label))
            key = f"{self._case.id}/{Gcg.NAME}/{number}"
            task = target.ask(self._asked[-1], key, self._means.method)
            requests += self._group.add(number, task)
        return requests


def _padded(ids: Ids, length: int) -> jax.Array:
    return jnp.asarray(np.pad(np.array(ids, np.int32), (0, length - len(ids))))
