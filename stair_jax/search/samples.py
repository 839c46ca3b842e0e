"""The steps that are sampled after one node, and which of them become its children."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from stair_jax.decoding.requests import Completion
from stair_jax.search.openings import Keeper


@dataclass
class Samples:
    """An expansion under way.

    Attributes:
      lane: of the tree.
      number: of samples that make it complete.
      found: by their number.
    """

    lane: int
    number: int
    found: dict[int, Completion] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether no sample is missing."""
        return len(self.found) == self.number

    def whole_steps(self, engine: Keeper, counts: Counter[str]) -> list[Completion]:
        """The samples without those that were cut off and without exact duplicates.

        Args:
          engine: gets back the handles of the others.
          counts: in which the others are counted.
        """
        distinct: dict[tuple[int, ...], Completion] = {}
        for _, sample in sorted(self.found.items()):
            tokens = tuple(sample.tokens)
            if sample.finish == "stop" and tokens not in distinct:
                distinct[tokens] = sample
                continue
            counts["duplicate_steps" if sample.finish == "stop" else "cut_steps"] += 1
            if sample.handle is not None:
                engine.release(sample.handle)
        return list(distinct.values())


def first_step(
    rollout: Completion, ends: Collection[int], limit: int, engine: Keeper
) -> Completion:
    """The first step of a rollout, as if it had been sampled alone.

    Args:
      rollout: its handle, if it has one, becomes that of the step.
      ends: tokens that end a step.
      limit: tokens of a step at most; a longer one is cut off.
      engine: that keeps the handle.
    """
    tokens = rollout.tokens[:limit]
    count = next((n for n, token in enumerate(tokens, start=1) if token in ends), None)
    handle = rollout.handle
    if count is None:
        if handle is not None:
            engine.release(handle)
        return Completion(rollout.id, tokens, rollout.logps[:limit], "length")
    if handle is not None:
        handle = engine.shorten(handle, len(handle.tokens) - len(rollout.tokens) + count)
    return Completion(rollout.id, tokens[:count], rollout.logps[:count], "stop", handle=handle)
