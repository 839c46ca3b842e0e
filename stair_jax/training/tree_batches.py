"""Batches of static shape whose groups share what they begin with (see data/trees.py)."""

from collections.abc import Hashable, Sequence

import numpy as np

from stair_jax.data.packing import Rows, split
from stair_jax.data.trees import Bundle, bundle
from stair_jax.training.batches import Batch, Batches, Group, describe_fill

MAX_RUNS = 16  # nodes that may count for one sequence: a step that k siblings leave early has k + 1

_MEASURED = 100  # batches that `fill` looks at


class TreeBatches(Batches):
    """Batches in which the groups of one prompt, as far as they are in one batch, are one trie.

    Micro-batches are as those of `Batches`, but for what follows. With A micro-batches, R rows, T
    places, S = batch_size groups of G sequences, D = MAX_RUNS and N = S * G * D, `micro` has no
    sequence_ids and no last; segment_ids number the tries of a row; and it has also

      ends [A, R, T] int32: the first place of the row behind the subtree of a place's node;
      node_ids [A, R, T] int32: which of N nodes a place belongs to; N where no loss counts it;
      runs [A, S, G, D] int32: for each sequence the nodes whose targets count for it, then N.

    So the sums of a sequence are sums over its nodes (`objectives.sequence_sums`), and a weight
    says whether any sequence counts the target. All shapes follow from R, T, S, G and A alone.
    `num_tokens` of a batch are the places in use.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        keys: Sequence[Hashable],
        batch_size: int,
        length: int,
        rows: int,
        longest: int | None = None,
        part: slice | None = None,
        pass_size: int | None = None,
    ):
        """Lays the groups out in the order given.

        Args:
          groups: as of `Batches`.
          keys: of each group; those with equal ones are laid out together, e.g. their prompt.
          batch_size: groups a step.
          length: places a row, at least `longest`. A group that needs more becomes one trie for
            each of its sequences.
          rows: rows of a micro-batch.
          longest: tokens of the longest sequence that there may be; None: `length`.
          part: those of the rows that are made here, see `mesh.local_rows`; None: all.
          pass_size: groups of one pass over the data; None: all of them.

        Raises:
          UserError: there is no group, or a micro-batch cannot hold one.
        """
        if len(keys) != len(groups):
            raise ValueError(f"{len(keys)} keys of {len(groups)} groups")
        self._keys, self._longest = keys, longest or length
        super().__init__(groups, batch_size, length, rows, part, pass_size)

    def fill(self) -> str:
        """For a message: tokens one sequence after the other, and places here; and padding."""
        count = min(len(self), _MEASURED)
        blocks = [block for index in range(count) for block in self._blocks(index)]
        places = sum(_num_places(block) for block in blocks)
        members = [number for block in blocks for one in block for number in one.members]
        tokens = sum(
            len(example) for number in members for example in self._groups[number].examples
        )
        shown = describe_fill(places, len(blocks) * self._rows, self._length)
        steps = f" in the first {count} steps" if count < len(self) else ""
        return (
            f"{len(members):,} pairs of {tokens:,} tokens{steps}; laid out as trees "
            f"{tokens / max(places, 1):.2f} times fewer: {shown}"
        )

    def _rows_needed(self, length: int) -> int:
        """Of a group that is not laid out together: first fit never opens more for it."""
        return -(-self._width // max(1, length // self._longest))

    def _make(self, index: int) -> Batch:
        blocks = self._blocks(index)
        members = tuple(tuple(m for one in block for m in one.members) for block in blocks)
        micros = [self._tree_micro(block) for block in blocks]
        return self._batch(index, members, micros, sum(map(_num_places, blocks)))

    def _blocks(self, index: int) -> list[list[Bundle]]:
        """The bundles of each micro-batch of a batch, with the groups' numbers in the run.

        Longest first, as of `Batches`: so there are no more micro-batches than it would have, for
        no bundle takes more rows than its groups would alone.
        """
        together: dict[Hashable, list[int]] = {}
        for number in self._numbers(index):
            together.setdefault(self._keys[number], []).append(number)
        bundles = []
        for numbers in together.values():
            groups = [self._groups[number].examples for number in numbers]
            for found in bundle(groups, self._length, MAX_RUNS):
                bundles.append(Bundle(tuple(numbers[m] for m in found.members), found.tries))
        bundles.sort(key=lambda found: -max(map(len, found.tries)))
        blocks = split([found.tries for found in bundles], self._length, self._rows)
        return [[bundles[place] for place in block] for block in blocks]

    def _tree_micro(self, bundles: Sequence[Bundle]) -> dict[str, np.ndarray]:
        groups = [self._groups[number] for found in bundles for number in found.members]
        none = self._batch_size * self._width * MAX_RUNS
        runs = np.full((self._batch_size * self._width, MAX_RUNS), none, np.int32)
        sequence, before = 0, 0
        for found in bundles:
            for run in found.runs:
                runs[sequence, : len(run)] = np.add(run, before)
                sequence += 1
            before += sum(trie.num_nodes for trie in found.tries)
        values = {name: [group.values[name] for group in groups] for name in groups[0].values}
        return {
            **self._places(bundles, none),
            "runs": runs.reshape(self._batch_size, self._width, MAX_RUNS),
            "group_weight": self._per_group([1.0] * len(groups)),
            **{name: self._per_group(numbers) for name, numbers in values.items()},
        }

    def _places(self, bundles: Sequence[Bundle], none: int) -> dict[str, np.ndarray]:
        """The arrays `[rows of this part, T]`."""
        own = range(self._rows)[self._part or slice(None)]
        names = ("tokens", "targets", "positions", "segment_ids", "ends", "node_ids")
        micro = {name: np.zeros((len(own), self._length), np.int32) for name in names}
        micro["node_ids"][:] = none
        tries = [trie for found in bundles for trie in found.tries]
        places = Rows(self._rows, self._length).place([len(trie) for trie in tries])
        assert places is not None  # as `split` has found
        node = 0
        for trie, (row, start) in zip(tries, places, strict=True):
            if row in own:
                here = own.index(row), slice(start, start + len(trie))
                micro["tokens"][here] = trie.tokens
                micro["targets"][here] = trie.targets
                micro["positions"][here] = trie.positions
                micro["segment_ids"][here] = micro["segment_ids"][here[0]].max() + 1
                micro["ends"][here] = trie.ends + start
                micro["node_ids"][here] = np.where(trie.node_ids < 0, none, trie.node_ids + node)
            node += trie.num_nodes
        weights = (micro["node_ids"] < none).astype(np.float32)
        return micro | {"weights": weights}


def _num_places(bundles: Sequence[Bundle]) -> int:
    return sum(len(trie) for found in bundles for trie in found.tries)
