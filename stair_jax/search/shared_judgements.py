"""Judgements of a tree that are made once for all evaluations whose answers are equal."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from stair_jax.search.judging.judges import Judging

Place = tuple[int, int]  # of an evaluation: its node, and its number there


@dataclass
class SharedJudgement:
    """One judgement, and the evaluations that it is for.

    Attributes:
      judging: of the evaluation that came first; None before that.
      places: of all evaluations.
      waiting: those that came while it was under way.
    """

    judging: Judging | None = None
    places: list[Place] = field(default_factory=list)
    waiting: list[Place] = field(default_factory=list)

    def take_waiting(self) -> list[Place]:
        """The evaluations that wait for it, which do so no longer."""
        taken, self.waiting = self.waiting, []
        return taken


class SharedJudgements:
    """The judgements of a tree, by what its judge reads of an answer."""

    def __init__(self) -> None:
        """Nothing was judged yet."""
        self._by_text: dict[str, SharedJudgement] = {}

    def join(self, text: str, place: Place) -> SharedJudgement:
        """The judgement of a text, one more of whose evaluations is that of `place`."""
        shared = self._by_text.setdefault(text, SharedJudgement())
        shared.places.append(place)
        return shared

    def groups(self) -> Iterator[list[Place]]:
        """Evaluations with one judgement, of each that is for several; the first one made it."""
        return (found.places for found in self._by_text.values() if len(found.places) > 1)
