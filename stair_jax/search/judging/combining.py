"""One score out of those of several sources."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from stair_jax.search.judging.sources.source import Scoring

Rule = Literal["first", "min", "mean"]


class Combined:
    """One question about one answer, put to several sources.

    A source that gives no score is left out; the score is None if none gives one. With "first" a
    source is asked only once those before it have given none.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Scoring]], rule: Rule):
        """Nothing is asked yet.

        Args:
          makers: for each source, by name and in order, what begins its scoring.
          rule: "first", "min" or "mean", see `JudgeSettings.combine`.
        """
        self._makers, self._rule = dict(makers), rule
        self._begun: dict[str, Scoring] = {}

    def start(self) -> list[Any]:
        """The first requests; none if the score is known at once."""
        return self._begin()

    def receive(self, name: str, completion: Any) -> list[Any]:
        """Passes a completion to the source that asked; returns the requests that follow."""
        requests = self._begun[name].receive(completion)
        return requests or self._begin()

    @property
    def done(self) -> bool:
        """Whether all that will be asked has been answered."""
        return self._has_enough or (
            len(self._begun) == len(self._makers)
            and all(scoring.done for scoring in self._begun.values())
        )

    @property
    def score(self) -> float | None:
        """The score in [-1, 1]; None if there is none."""
        scores = self._scores
        if not scores:
            return None
        if self._rule == "mean":
            return sum(scores) / len(scores)
        return min(scores) if self._rule == "min" else scores[0]

    @property
    def unreadable(self) -> int:
        """Replies that could not be read."""
        return sum(scoring.unreadable for scoring in self._begun.values())

    @property
    def closings(self) -> int:
        """Replies whose closing line was asked for separately."""
        return sum(scoring.closings for scoring in self._begun.values())

    @property
    def _scores(self) -> list[float]:
        found = (self._begun[name].score for name in self._makers if name in self._begun)
        return [score for score in found if score is not None]

    @property
    def _has_enough(self) -> bool:
        return self._rule == "first" and bool(self._scores)

    def _begin(self) -> list[Any]:
        """Begins the next source, or with "min" and "mean" all of them."""
        requests: list[Any] = []
        for name, make in self._makers.items():
            under_way = any(not scoring.done for scoring in self._begun.values())
            if self._rule == "first" and (self._has_enough or under_way):
                break
            if name not in self._begun:
                scoring = self._begun[name] = make()
                requests += scoring.start()
        return requests
