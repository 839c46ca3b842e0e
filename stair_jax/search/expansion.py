"""The samples of an expansion, and which of them become children (deduplication)."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from stair_jax.decoding.requests import Completion
from stair_jax.search.judging.prefixes import Keeper


@dataclass
class ExpansionSamples:
    """The samples of one expansion.

    Attributes:
      lane: the lane of the tree that asked for it.
      number: how many samples are needed.
      found: completions by sample number.
    """

    lane: int
    number: int
    found: dict[int, Completion] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all samples are there."""
        return len(self.found) == self.number

    def distinct_steps(self, engine: Keeper, counts: Counter[str]) -> list[Completion]:
        """The distinct samples that were not cut off, in the order of their numbers.

        Args:
          engine: the handles of the other samples are released there.
          counts: the others are counted here, as "duplicate_steps" and "cut_steps".
        """
        distinct: dict[tuple[int, ...], Completion] = {}
        for _, sample in sorted(self.found.items()):  # not in the order of completion
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
    """The first step of a rollout, as if it had been sampled on its own.

    Args:
      rollout: a completed rollout; its handle, if any, is consumed.
      ends: token ids that end a step.
      limit: most tokens of a step; a longer one has finish "length" and no handle.
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
