"""Random search for a suffix that makes an affirmative first token likely (arXiv 2404.02151)."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from stair_jax.decoding.task import Task, TaskGroup
from stair_jax.evaluation.attacks.attack import Attack, Means, Tried
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.attacks.suffix_settings import RandomSearchSettings
from stair_jax.evaluation.attacks.suffixes import SuffixSpace
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked, Reply

# Draws of a replacement until one stays the same as text; then the search does without.
_DRAWS = 50

Ids = tuple[int, ...]


@dataclass(frozen=True)
class RandomSearch(Attack):
    """A suffix by log-probabilities alone, then the chat with it."""

    NAME = "random_search"
    NEEDS = frozenset({"likelihoods"})
    PAPER = "2404.02151"

    settings: RandomSearchSettings = field(default_factory=RandomSearchSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.random_search)

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """The best suffix of each restart is asked."""
        return RandomSearchTask(self.settings, case, means)


class RandomSearchTask(Task[list[Tried]]):
    """Restarts one after another: rounds of scores, then an answer."""

    def __init__(self, settings: RandomSearchSettings, case: Case, means: Means):
        """A task that has asked nothing yet.

        Raises:
          UserError: the target has no log-probabilities, or no suffix can be sent as text.
        """
        self._settings, self._case, self._means = settings, case, means
        self._draw = random.Random(f"{means.seed}/{RandomSearch.NAME}/{case.id}")
        tokens = means.target.chat_tokens()
        self._space = SuffixSpace(tokens, case.messages, settings.length, self._draw)
        self._target = settings.target_of(case)
        self._group = TaskGroup()
        self._tried: list[Tried] = []
        self._search = self._new_search()
        self._asked: Asked | None = None  # while the best suffix is asked

    def start(self) -> list[Any]:
        """Scores the first suffix."""
        return self._score(self._search.first())

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on, and goes on when the round is over."""
        requests = self._group.receive(completion)
        return requests if not self._group.done else [*requests, *self._next()]

    def close(self) -> None:
        """Closes what is not done."""
        self._group.close()

    def _next(self) -> list[Any]:
        results, self._group = self._group.results, TaskGroup()
        if self._asked is None:
            scores = [results[number][0] for number in range(len(results))]
            suffixes = self._search.told(scores)
            return self._score(suffixes) if suffixes else self._ask()
        reply: Reply = results[0]
        self._tried.append(Tried(self._asked, reply, reply.final))
        self._asked = None
        if len(self._tried) == self._settings.restarts:
            self.result = self._tried
            return []
        self._search = self._new_search()
        return self._score(self._search.first())

    def _new_search(self) -> "_Search":
        """A share of the queries, the first ones getting what is left over."""
        settings, number = self._settings, len(self._tried)
        share = settings.queries // settings.restarts
        share += number < settings.queries % settings.restarts
        return _Search(settings, self._space, share, self._draw, is_first=number == 0)

    def _score(self, suffixes: list[Ids]) -> list[Any]:
        target, requests = self._means.target, []
        for number, ids in enumerate(suffixes):
            messages = self._space.messages(ids)
            task = target.score_first(messages, (self._target,), self._settings.place)
            requests += self._group.add(number, task)
        return requests

    def _ask(self) -> list[Any]:
        self._asked = Asked(self._space.messages(self._search.best))
        key = f"{self._case.id}/{RandomSearch.NAME}/{len(self._tried)}"
        return self._group.add(0, self._means.target.ask(self._asked, key, self._means.method))


class _Search:
    """One restart.

    Attributes:
      best: the best suffix so far.
      score: its log-probability.
    """

    def __init__(
        self,
        settings: RandomSearchSettings,
        space: SuffixSpace,
        queries: int,
        draw: random.Random,
        is_first: bool,
    ):
        """A search that has scored nothing yet; all but the first begin at a random suffix."""
        self._settings, self._space, self._draw = settings, space, draw
        self._queries = self._left = queries
        self.best = space.start
        for _ in range(0 if is_first else settings.length):
            # Token by token: of whole random suffixes, few stay the same as text.
            self.best = next(self._changed(1), self.best)
        self.score = -math.inf
        self._waiting: list[Ids] = []

    def first(self) -> list[Ids]:
        """The suffix to begin with, to be scored."""
        return self._wait_for([self.best])

    def told(self, scores: list[float]) -> list[Ids]:
        """Takes the scores of what was asked last; returns what to score next, none at the end."""
        for ids, score in zip(self._waiting, scores, strict=True):
            if score > self.score:
                self.best, self.score = ids, score
        count = min(self._settings.batch, self._left)
        if not count or self.score >= math.log(self._settings.enough):
            return []
        used = 1 - self._left / self._queries
        block = max(1, round(self._settings.block * (1 - used)))
        changed = self._changed(min(block, self._settings.length))
        return self._wait_for([ids for _, ids in zip(range(count), changed, strict=False)])

    def _wait_for(self, suffixes: list[Ids]) -> list[Ids]:
        self._waiting = suffixes
        self._left -= len(suffixes)
        return suffixes

    def _changed(self, block: int) -> Iterator[Ids]:
        """The best suffix with other tokens in a block; ends where none stays the same as text."""
        allowed = self._space.allowed
        while True:
            for _ in range(_DRAWS if allowed else 0):
                at = self._draw.randrange(len(self.best) - block + 1)
                new = tuple(self._draw.choice(allowed) for _ in range(block))
                ids = (*self.best[:at], *new, *self.best[at + block :])
                if ids != self.best and self._space.is_kept(ids):
                    yield ids
                    break
            else:
                return
