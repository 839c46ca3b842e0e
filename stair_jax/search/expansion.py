"""The samples of an expansion, and which of them become children (deduplication)."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from stair_jax.decoding.requests import Completion, Finish
from stair_jax.search.judging.prefixes import Keeper

_LONGEST_CHARACTER = 4  # bytes in UTF-8


@dataclass
class ExpansionSamples:
    """The samples of one expansion.

    Attributes:
      lane: the lane of the tree that asked for it.
      number: how many samples are needed.
      found: completions by sample number.
      again: how many of them are in place of duplicates.
    """

    lane: int
    number: int
    found: dict[int, Completion] = field(default_factory=dict)
    again: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all samples are there."""
        return len(self.found) == self.number

    def ask_again(self, limit: int, keep_cut: bool) -> range:
        """Numbers of samples to take in place of the duplicates among those that are there.

        Args:
          limit: most samples of one expansion that are taken again.
          keep_cut: as in `distinct_steps`.
        """
        steps = [tuple(s.tokens) for s in self.found.values() if _is_step(s, keep_cut)]
        count = min(len(steps) - len(set(steps)) - self.again, limit - self.again)
        first = self.number
        self.number += max(count, 0)
        self.again += max(count, 0)
        return range(first, self.number)

    def distinct_steps(
        self, engine: Keeper, counts: Counter[str], keep_cut: bool
    ) -> list[Completion]:
        """The distinct samples, in the order of their numbers.

        Args:
          engine: the handles of the other samples are released there.
          counts: the others are counted here, as "duplicate_steps" and "cut_steps"; those that were
            cut and are kept as "kept_cut_steps".
          keep_cut: whether a sample that was cut at a limit of tokens is one of them.
        """
        distinct: dict[tuple[int, ...], Completion] = {}
        for _, sample in sorted(self.found.items()):  # not in the order of completion
            tokens = tuple(sample.tokens)
            is_whole = sample.finish == "stop"
            is_kept = _is_step(sample, keep_cut)
            if is_kept and tokens not in distinct:
                distinct[tokens] = sample
                if not is_whole:
                    counts["kept_cut_steps"] += 1
                continue
            counts["duplicate_steps" if is_kept else "cut_steps"] += 1
            if sample.handle is not None:
                engine.release(sample.handle)
        return list(distinct.values())


def _is_step(sample: Completion, keep_cut: bool) -> bool:
    """Whether a sample is a step: one with its end, or (`keep_cut`) one that a limit cut."""
    is_cut = sample.finish == "length" and len(sample.tokens) > 0
    return sample.finish == "stop" or (keep_cut and is_cut)


def whole_characters(
    sample: Completion, decode: Callable[[Sequence[int]], str], engine: Keeper
) -> Completion:
    """A sample that was cut, without the tokens of a character that the limit divides.

    A character has up to four bytes, and a token may be one of them: the text of such a step would
    end in U+FFFD, and the texts of a path would not add up to the answer.
    """
    if sample.finish != "length":
        return sample
    for count in range(len(sample.tokens), max(len(sample.tokens) - _LONGEST_CHARACTER, -1), -1):
        if not decode(sample.tokens[:count]).endswith("\ufffd"):
            break
    else:  # the model's own U+FFFD
        return sample
    handle, dropped = sample.handle, len(sample.tokens) - count
    if handle is not None and dropped:
        handle = engine.shorten(handle, len(handle.tokens) - dropped)
    return replace(sample, tokens=sample.tokens[:count], logps=sample.logps[:count], handle=handle)


def first_step(
    rollout: Completion, ends: Collection[int], limit: int, engine: Keeper, keep_cut: bool
) -> Completion:
    """The first step of a rollout, as if it had been sampled on its own.

    Args:
      rollout: a completed rollout; its handle, if any, is consumed.
      ends: token ids that end a step.
      limit: most tokens of a step; a longer one is cut and has finish "length".
      engine: that keeps the handle.
      keep_cut: whether a step that is cut keeps a handle.
    """
    tokens = rollout.tokens[:limit]
    end = next((n for n, token in enumerate(tokens, start=1) if token in ends), None)
    count, handle = end or len(tokens), rollout.handle
    if handle is not None and end is None and not (keep_cut and tokens):
        engine.release(handle)
        handle = None
    if handle is not None:
        handle = engine.shorten(handle, len(handle.tokens) - len(rollout.tokens) + count)
    finish: Finish = "length" if end is None else "stop"
    return Completion(rollout.id, tokens[:count], rollout.logps[:count], finish, handle=handle)
