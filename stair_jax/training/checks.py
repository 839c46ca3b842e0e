"""What looks at a model in training now and then: evaluation of held-out rows, text samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stair_jax.samples import Sample
from stair_jax.training.step import Params


@dataclass(frozen=True)
class Seen:
    """What a check has found: metrics, and texts."""

    values: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class Check:
    """Looks at the parameters every so many steps.

    Attributes:
      name: such as "eval", whose time is "eval_seconds".
      every: steps from one to the next; 0: none in between.
      at_end: whether it comes behind the last step in any case.
      look: called with the number of steps done and the parameters, which it only reads; by all
        processes, and with the same result in all.
    """

    name: str
    every: int
    at_end: bool
    look: Callable[[int, Params], Seen]

    def is_due(self, done: int, total: int) -> bool:
        """Whether it comes after `done` of `total` steps."""
        return bool(self.every and done % self.every == 0) or (self.at_end and done == total)
