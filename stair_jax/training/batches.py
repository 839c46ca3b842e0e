"""Batches of static shape: groups of sequences, packed into micro-batches.

A group is what the loss sees as one: an example of SFT, or the two sides of a pair. A batch holds
`batch_size` groups (the last one fewer), packed by first fit, longest first, into as many
micro-batches of `rows` x `length` tokens as they need. All arrays have room for the most
micro-batches that any batch could need; those not in use are zeros, have no weight and are not run.

In a run of several processes all lay out the same batches, from the lengths alone; each then makes
its own rows of the micro-batches, and reads no other tokens.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
    tokens in R * T; and the values of the groups, [A, S]. Of a part of the rows, [A, R, T] arrays
    have these rows only; the others are the same in all parts.

    Attributes:
      arrays: as above.
      members: for each micro-batch in use, the numbers of its groups among those of the run.
      ids: of the groups.
      num_tokens: without padding, in all processes.
      num_rows: R in all processes together; None: as many as the arrays have.
    """

    arrays: dict[str, Any]
    members: tuple[tuple[int, ...], ...]
    ids: tuple[str, ...]
    num_tokens: int
    num_rows: int | None = None

    @property
    def num_positions(self) -> int:
        """Places of the micro-batches in use, in all processes, with a token or without."""
        _, rows, length = self.arrays["micro"]["tokens"].shape
        return int(self.arrays["count"]) * (self.num_rows or rows) * length


class Batches(Sequence[Batch]):
    """The batches of a run, made when asked for; the same each time."""

    def __init__(
        self,
        groups: Sequence[Group],
        batch_size: int,
        length: int,
        rows: int,
        part: slice | None = None,
        pass_size: int | None = None,
    ):
        """Lays the groups out in the order given.

        Args:
          groups: at least one; all of the same number of sequences and with the same values.
          batch_size: groups a step.
          length: tokens a row, at least as many as any sequence has.
          rows: rows of a micro-batch.
          part: those of them that are made here, see `mesh.local_rows`; None: all.
          pass_size: groups of one pass over the data; None: all of them.

        Raises:
          UserError: there is no group, or a micro-batch cannot hold one.
        """
        if not groups:
            raise UserError("there is nothing to train on: no example is left")
        self._width = len(groups[0].examples)
        needed = self._rows_needed(length)
        if batch_size < 1 or rows < needed:
            raise UserError(
                f"batch_size {batch_size} must be at least 1, "
                f"microbatch_rows {rows} at least {needed}"
            )
        self._groups, self._batch_size, self._length, self._rows = groups, batch_size, length, rows
        self._part = part
        self._pass_size = pass_size or len(groups)
        self._max_count = -(-batch_size // (rows // needed))
        self._layouts: dict[int, tuple[tuple[int, ...], ...]] = {}

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
        return self._make(index)

    def state(self, step: int) -> dict[str, int | str]:
        """Where in the data a run is that has done `step` steps, for its checkpoint.

        It differs at the same step where the examples, their order or the size of a batch do.
        """
        done = min(step * self._batch_size, len(self._groups))
        return {
            "order": self._order,
            "step": step,
            "epoch": done // self._pass_size,
            "examples": done,
        }

    def fill(self) -> str:
        """For a message: how many tokens there are, in how many rows, and how full these are."""
        count = sum(len(self._layout(index)) for index in range(len(self)))
        return describe_fill(_num_tokens(self._groups), count * self._rows, self._length)

    def order_of(self, examples: int) -> str:
        """What `state` calls the order of a run that ends after so many of the groups."""
        return fingerprint_order(self._groups[:examples])

    @cached_property
    def _order(self) -> str:
        return fingerprint_order(self._groups)

    def _numbers(self, index: int) -> range:
        """The groups of a batch."""
        start = index * self._batch_size
        return range(start, min(start + self._batch_size, len(self._groups)))

    def _rows_needed(self, length: int) -> int:
        """Rows that the longest group may take, alone in a micro-batch."""
        return self._width

    def _make(self, index: int) -> Batch:
        members = self._layout(index)
        micros = [self._micro([self._groups[number] for number in block]) for block in members]
        num_tokens = _num_tokens(self._groups[number] for number in self._numbers(index))
        return self._batch(index, members, micros, num_tokens)

    def _batch(
        self,
        index: int,
        members: tuple[tuple[int, ...], ...],
        micros: Sequence[dict[str, np.ndarray]],
        num_tokens: int,
    ) -> Batch:
        stacked = {}
        for name, first in micros[0].items():
            stacked[name] = np.zeros((self._max_count, *first.shape), first.dtype)
            stacked[name][: len(micros)] = [micro[name] for micro in micros]
        ids = tuple(self._groups[number].id for number in self._numbers(index))
        arrays = {"count": np.int32(len(micros)), "micro": stacked}
        return Batch(arrays, members, ids, num_tokens, self._rows)

    def _layout(self, index: int) -> tuple[tuple[int, ...], ...]:
        """The groups of each micro-batch of a batch; longest first, which leaves few gaps."""
        if index not in self._layouts:
            groups = self._groups
            order = sorted(
                self._numbers(index), key=lambda number: -max(map(len, groups[number].examples))
            )
            blocks = split([groups[number].examples for number in order], self._length, self._rows)
            self._layouts[index] = tuple(tuple(order[place] for place in block) for block in blocks)
        return self._layouts[index]

    def _micro(self, groups: Sequence[Group]) -> dict[str, np.ndarray]:
        examples = [example for group in groups for example in group.examples]
        packed = pack(examples, self._length, self._rows, self._part)
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


def fingerprint_order(groups: Iterable[Group]) -> str:
    """Sha256 of the ids and the lengths of groups, in their order."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(f"{group.id!r} {[len(example) for example in group.examples]}\n".encode())
    return digest.hexdigest()


def describe_fill(num_tokens: int, num_rows: int, length: int) -> str:
    """For a message: so many tokens in so many rows of `length`, and the share of padding."""
    padding = 1 - num_tokens / (num_rows * length)
    return f"{num_tokens:,} tokens in {num_rows:,} rows of {length}, {padding:.1%} padding"


def _num_tokens(groups: Iterable[Group]) -> int:
    return sum(len(example) for group in groups for example in group.examples)
