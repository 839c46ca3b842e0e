"""Batches of static shape: groups of sequences, packed into micro-batches.

A group is what the loss sees as one: an example of SFT, or the two sides of a pair. A batch holds
`batch_size` groups (the last one fewer), packed by first fit, longest first, into as many
micro-batches of `rows` x `length` tokens as they need. All arrays have room for the most
micro-batches that any batch could need; those not in use are zeros, have no weight and are not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from stair_jax.data.packing import Example, pack, split
from stair_jax.errors import UserError


@dataclass(frozen=True)
class Group:
    """Sequences that share a micro-batch, and numbers that belong to them."""

    id: str
    examples: tuple[Example, ...]
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Arguments of one step: {"count": int32, "micro": {name: array}}, and whose they are.

    With A micro-batches, R rows, T tokens, S = batch_size groups of G sequences, `micro` has
    tokens, targets, positions, segment_ids, sequence_ids (S * G is padding), weights: [A, R, T];
    group_weight [A, S] (1, or 0 where there is no group); last [A, S * G], places of the last
    tokens in R * T; and the values of the groups, [A, S].

    Attributes:
      arrays: as above.
      members: for each micro-batch in use, the numbers of its groups among those of the run.
      ids: of the groups.
      num_tokens: without padding.
    """

    arrays: dict[str, Any]
    members: tuple[tuple[int, ...], ...]
    ids: tuple[str, ...]
    num_tokens: int


class Batches(Sequence[Batch]):
    """The batches of a run, made when asked for; the same each time."""

    def __init__(self, groups: Sequence[Group], batch_size: int, length: int, rows: int):
        """Lays the groups out in the order given.

        Args:
          groups: at least one; all of the same number of sequences and with the same values.
          batch_size: groups a step.
          length: tokens a row, at least as many as any sequence has.
          rows: rows of a micro-batch.

        Raises:
          UserError: there is no group, or a micro-batch cannot hold one.
        """
        if not groups:
            raise UserError("there is nothing to train on: no example is left")
        self._width = len(groups[0].examples)
        if batch_size < 1 or rows < self._width:
            raise UserError(
                f"batch_size {batch_size} must be at least 1, "
                f"microbatch_rows {rows} at least {self._width}"
            )
        self._groups, self._batch_size, self._length, self._rows = groups, batch_size, length, rows
        self._max_count = -(-batch_size // (rows // self._width))

    def __len__(self) -> int:
        return -(-len(self._groups) // self._batch_size)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        """The batch of a step, or of several."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self._batch_size
        return self._make(range(start, min(start + self._batch_size, len(self._groups))))

    def _make(self, numbers: Sequence[int]) -> Batch:
        groups = [self._groups[number] for number in numbers]
        order = sorted(numbers, key=lambda number: -max(map(len, self._groups[number].examples)))
        blocks = split(
            [self._groups[number].examples for number in order], self._length, self._rows
        )
        members = tuple(tuple(order[place] for place in block) for block in blocks)
        micros = [self._micro([self._groups[number] for number in block]) for block in members]
        stacked = {}
        for name, first in micros[0].items():
            stacked[name] = np.zeros((self._max_count, *first.shape), first.dtype)
            stacked[name][: len(micros)] = [micro[name] for micro in micros]
        return Batch(
            {"count": np.int32(len(micros)), "micro": stacked},
            members,
            tuple(group.id for group in groups),
            sum(len(example) for group in groups for example in group.examples),
        )

    def _micro(self, groups: Sequence[Group]) -> dict[str, np.ndarray]:
        examples = [example for group in groups for example in group.examples]
        packed = pack(examples, self._length, self._rows)
        padding = self._batch_size * self._width
        sequence_ids = np.where(packed.segment_ids > 0, packed.sequence_ids, padding)
        last = np.zeros(padding, np.int32)
        last[: len(examples)] = packed.last
        values = {name: [group.values[name] for group in groups] for name in groups[0].values}
        return {
            "tokens": packed.tokens,
            "targets": packed.targets,
            "positions": packed.positions,
            "segment_ids": packed.segment_ids,
            "weights": packed.weights,
            "sequence_ids": sequence_ids.astype(np.int32),
            "last": last,
            "group_weight": self._per_group([1.0] * len(groups)),
            **{name: self._per_group(numbers) for name, numbers in values.items()},
        }

    def _per_group(self, numbers: Sequence[float]) -> np.ndarray:
        padded = np.zeros(self._batch_size, np.float32)
        padded[: len(numbers)] = numbers
        return padded
