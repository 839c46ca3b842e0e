"""Batches of static shape, packed into micro-batches for gradient accumulation.

A group is the unit of the loss: one SFT example, or the two sides of a preference pair; it is never
split over micro-batches. A batch holds `batch_size` groups (the last one fewer), packed by
first-fit decreasing into as many micro-batches of `rows` x `length` tokens as it needs. So that the
training step is compiled once, all arrays have room for the most micro-batches that any batch could
need; the unused ones are zeros with weight 0, and the step does not run them.

In a multi-process run every process computes the same layout, from the lengths alone, and then
fills only the rows of its own devices: the tokens of other rows are never read.
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
    """The unit of the loss: G sequences that have to be in one micro-batch."""

    id: str
    examples: tuple[Example, ...]  # G of them: 1 for SFT, (chosen, rejected) for pairs
    values: Mapping[str, float] = field(default_factory=dict)  # e.g. reference log-probs


@dataclass(frozen=True)
class Batch:
    """The arrays of one training step, {"count": int32, "micro": {name: array}}, and their groups.

    `count` is the number of micro-batches in use. With A micro-batches, R rows of T tokens, and
    S = batch_size groups of G sequences, `micro` holds

      tokens, targets, positions, segment_ids [A, R, T] int32: see `data.packing.Packed`;
      sequence_ids [A, R, T] int32: sequence of each token in its micro-batch; S * G is padding;
      weights [A, R, T] float32: 1 where the loss counts the target;
      sft_weights [A, R, T] float32, where the SFT term of DPO is on whole answers: 1 where it alone
        counts the target;
      group_weight [A, S] float32: 1, or 0 where there is no group;
      last [A, S * G] int32: position of each sequence's last token in the flattened [R * T];
      and one [A, S] float32 array for each of the groups' values.

    In a process that holds only a part of the rows, the [A, R, T] arrays have these rows only; the
    other arrays are the same in all processes.

    Attributes:
      arrays: as above.
      members: for each micro-batch in use, the indices of its groups in the run.
      ids: of the groups.
      num_tokens: tokens without padding, over all processes.
      num_rows: R over all processes; None: as many as the arrays have.
    """

    arrays: dict[str, Any]
    members: tuple[tuple[int, ...], ...]
    ids: tuple[str, ...]
    num_tokens: int
    num_rows: int | None = None

    @property
    def num_positions(self) -> int:
        """Token positions of the micro-batches in use, padding included, over all processes."""
        _, rows, length = self.arrays["micro"]["tokens"].shape
        return int(self.arrays["count"]) * (self.num_rows or rows) * length


class Batches(Sequence[Batch]):
    """The batches of a run, one per step; made lazily and deterministically when indexed."""

    def __init__(
        self,
        groups: Sequence[Group],
        batch_size: int,
        length: int,
        rows: int,
        part: slice | None = None,
        pass_size: int | None = None,
        sft_alone: bool = False,
        row_sequences: int = 0,
    ):
        """Takes the groups in training order.

        Args:
          groups: at least one; all with the same number of sequences and the same value names.
          batch_size: groups per step.
          length: tokens per row, at least those of the longest sequence.
          rows: rows per micro-batch, over all processes.
          part: the rows that this process makes, see `mesh.local_rows`; None: all.
          pass_size: groups in one pass over the data (for the epoch number); None: all of them.
          sft_alone: whether to make the arrays of the targets of mask SFT_ALONE.
          row_sequences: most sequences of a row; 0: `packing.most_sequences`.

        Raises:
          UserError: there is no group, or a micro-batch cannot hold one.
        """
        if not groups:
            raise UserError("there are no training examples")
        self._width = len(groups[0].examples)
        needed = self._rows_needed(length)
        if batch_size < 1 or rows < needed:
            raise UserError(
                f"batch_size {batch_size} must be at least 1, "
                f"microbatch_rows {rows} at least {needed}"
            )
        self._groups, self._batch_size, self._length, self._rows = groups, batch_size, length, rows
        self._part, self._sft_alone, self._row_sequences = part, sft_alone, row_sequences
        self._pass_size = pass_size or len(groups)
        # Worst case: all sequences so long that each micro-batch holds rows // needed groups.
        self._max_count = -(-batch_size // (rows // needed))
        # Layouts are kept, arrays are not: `fill` and training both need them.
        self._layouts: dict[int, tuple[tuple[int, ...], ...]] = {}

    def __len__(self) -> int:
        return -(-len(self._groups) // self._batch_size)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        """The batch of a step, or the batches of a slice of steps."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._make(index)

    def state(self, step: int) -> dict[str, int | str]:
        """Position in the data after `step` steps, as saved in checkpoints.

        A resumed run compares it: it differs if the examples, their order or the batch size do.
        """
        done = min(step * self._batch_size, len(self._groups))
        return {
            "order": self._order,
            "step": step,
            "epoch": done // self._pass_size,
            "examples": done,
        }

    def fill(self) -> str:
        """Describes tokens, rows and padding of the run, for a message."""
        count = sum(len(self._layout(index)) for index in range(len(self)))
        return describe_fill(_num_tokens(self._groups), count * self._rows, self._length)

    def longer_than(self, limit: int) -> tuple[int, int]:
        """How many sequences have more tokens than `limit`, and the tokens of the longest."""
        lengths = [len(example) for group in self._groups for example in group.examples]
        return sum(length > limit for length in lengths), max(lengths)

    def order_of(self, examples: int) -> str:
        """The "order" in the `state` of a run that has only the first `examples` groups.

        By it a run that was lengthened recognises the checkpoints of the shorter one.
        """
        return fingerprint_order(self._groups[:examples])

    @cached_property
    def _order(self) -> str:
        return fingerprint_order(self._groups)

    def _numbers(self, index: int) -> range:
        """Indices of the groups of a batch."""
        start = index * self._batch_size
        return range(start, min(start + self._batch_size, len(self._groups)))

    def _rows_needed(self, length: int) -> int:
        """Rows that a group may need in an empty micro-batch: at worst one for each sequence."""
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
        # Zeros are right for unused micro-batches: segment 0 is padding, and all weights are 0.
        for name, first in micros[0].items():
            stacked[name] = np.zeros((self._max_count, *first.shape), first.dtype)
            stacked[name][: len(micros)] = [micro[name] for micro in micros]
        ids = tuple(self._groups[number].id for number in self._numbers(index))
        arrays = {"count": np.int32(len(micros)), "micro": stacked}
        return Batch(arrays, members, ids, num_tokens, self._rows)

    def _layout(self, index: int) -> tuple[tuple[int, ...], ...]:
        """Indices of the groups of each micro-batch of a batch, by first-fit decreasing."""
        if index not in self._layouts:
            groups = self._groups
            # By negated length: the sort is stable, so that ties keep the training order.
            order = sorted(
                self._numbers(index), key=lambda number: -max(map(len, groups[number].examples))
            )
            blocks = split(
                [groups[number].examples for number in order],
                self._length,
                self._rows,
                self._row_sequences,
            )
            self._layouts[index] = tuple(tuple(order[place] for place in block) for block in blocks)
        return self._layouts[index]

    def _micro(self, groups: Sequence[Group]) -> dict[str, np.ndarray]:
        examples = [example for group in groups for example in group.examples]
        packed = pack(examples, self._length, self._rows, self._part, self._row_sequences)
        # One id for padding in every micro-batch, whatever its number of sequences.
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
            **({"sft_weights": packed.sft_weights} if self._sft_alone else {}),
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
    """SHA-256 over the ids and lengths of the groups, in their order."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(f"{group.id!r} {[len(example) for example in group.examples]}\n".encode())
    return digest.hexdigest()


def describe_fill(num_tokens: int, num_rows: int, length: int) -> str:
    """Text such as "900 tokens in 1 rows of 1024, 12.1% padding"."""
    padding = 1 - num_tokens / (num_rows * length)
    return f"{num_tokens:,} tokens in {num_rows:,} rows of {length}, {padding:.1%} padding"


def _num_tokens(groups: Iterable[Group]) -> int:
    return sum(len(example) for group in groups for example in group.examples)
