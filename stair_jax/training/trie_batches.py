"""Batches laid out as tries: sequences with a common prefix share its tokens (`data/tries.py`).

Preference pairs of one prompt have long common prefixes (prompt, path). In a trie each shared part
goes through the model once, under a tree attention mask.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from stair_jax.data.packing import FirstFitRows, split
from stair_jax.data.tries import Bundle, bundle_tries
from stair_jax.training.batches import Batch, Batches, Group, describe_fill

# Most trie nodes with loss per sequence. A step has k + 1 nodes if k siblings branch off within it.
MAX_RUNS = 16
# The same of the path before it: at each depth siblings branch off.
MAX_SFT_RUNS = 64

_MEASURED = 100  # batches that `fill` lays out: a sample, as laying out tries takes time


class TrieBatches(Batches):
    """Batches in which the groups with one key (one prompt) in a batch share a trie.

    With A micro-batches, R rows of T positions, S = batch_size groups of G sequences, D = MAX_RUNS
    and N = S * G * D, the arrays of `micro` are those of `Batches`, except that there are no
    sequence_ids and no last, that segment_ids number the tries of a row, and that there are also

      ends [A, R, T] int32: first row position after the subtree of the position's node: it is the
        tree attention mask, see `data/tries.py`;
      node_ids [A, R, T] int32: node of each position among those with loss; N where there is none;
      runs [A, S, G, D] int32: the nodes whose targets count for each sequence, padded with N;
      sft_runs [A, S, 1, MAX_SFT_RUNS] int32, in place of sft_weights: the nodes that the SFT term
        alone counts for the first sequence of each group; N is S * MAX_SFT_RUNS more then.

    The loss of a sequence is a sum over its nodes (`objectives.sequence_sums`); `weights` is 1
    where any sequence counts the target. All shapes depend on R, T, S, G and A only.
    `num_tokens` of a batch is the number of trie positions in use.
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
        sft_alone: bool = False,
    ):
        """Takes the groups in training order.

        Args:
          groups: as for `Batches`.
          keys: one per group; groups of a batch with equal keys share a trie. E.g. the prompts.
          batch_size: groups per step.
          length: positions per row, at least `longest`. A group whose trie needs more is laid out
            as one trie per sequence.
          rows: rows per micro-batch, over all processes.
          longest: most tokens of any sequence; None: `length`.
          part: the rows that this process makes, see `mesh.local_rows`; None: all.
          pass_size: groups in one pass over the data; None: all of them.
          sft_alone: whether to make the arrays of the targets of mask SFT_ALONE.

        Raises:
          UserError: there is no group, or a micro-batch cannot hold one.
          ValueError: the number of keys is not that of the groups.
        """
        if len(keys) != len(groups):
            raise ValueError(f"{len(keys)} keys of {len(groups)} groups")
        self._keys, self._longest = keys, longest or length
        super().__init__(groups, batch_size, length, rows, part, pass_size, sft_alone)

    def fill(self) -> str:
        """Describes tokens with and without sharing, rows and padding, for a message."""
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
        """Rows for a group that is laid out as one trie per sequence, the worst case.

        Each row holds at least length // longest of these.
        """
        return -(-self._width // max(1, length // self._longest))

    def _make(self, index: int) -> Batch:
        blocks = self._blocks(index)
        members = tuple(tuple(m for one in block for m in one.members) for block in blocks)
        micros = [self._tree_micro(block) for block in blocks]
        return self._batch(index, members, micros, sum(map(_num_places, blocks)))

    def _blocks(self, index: int) -> list[list[Bundle]]:
        """The bundles of each micro-batch of a batch; their members are indices in the run.

        First-fit decreasing, as in `Batches`. A bundle never takes more rows than its groups would
        separately, so the bound on the number of micro-batches of `Batches` holds here too.
        """
        # Only within the batch: sharing never changes which groups a step has.
        together: dict[Hashable, list[int]] = {}
        for number in self._numbers(index):
            together.setdefault(self._keys[number], []).append(number)
        bundles = []
        for numbers in together.values():
            groups = [self._groups[number].examples for number in numbers]
            max_sft_runs = MAX_SFT_RUNS if self._sft_alone else 0
            for found in bundle_tries(groups, self._length, MAX_RUNS, max_sft_runs):
                bundles.append(Bundle(tuple(numbers[m] for m in found.members), found.tries))
        bundles.sort(key=lambda found: -max(map(len, found.tries)))
        blocks = split([found.tries for found in bundles], self._length, self._rows)
        return [[bundles[place] for place in block] for block in blocks]

    def _tree_micro(self, bundles: Sequence[Bundle]) -> dict[str, np.ndarray]:
        groups = [self._groups[number] for found in bundles for number in found.members]
        size, width = self._batch_size, self._width
        sft_places = size * MAX_SFT_RUNS if self._sft_alone else 0
        none = size * width * MAX_RUNS + sft_places  # N: no node
        runs = np.full((size * width, MAX_RUNS), none, np.int32)
        sft_runs = np.full((size, 1, MAX_SFT_RUNS), none, np.int32)
        sequence, before = 0, 0
        for found in bundles:  # node numbers are unique within a micro-batch
            for run, alone in zip(found.runs, found.sft_runs, strict=True):
                runs[sequence, : len(run)] = np.add(run, before)
                if sequence % width == 0:
                    sft_runs[sequence // width, 0, : len(alone)] = np.add(alone, before)
                sequence += 1
            before += sum(trie.num_nodes for trie in found.tries)
        values = {name: [group.values[name] for group in groups] for name in groups[0].values}
        return {
            **self._places(bundles, none),
            "runs": runs.reshape(size, width, MAX_RUNS),
            **({"sft_runs": sft_runs} if self._sft_alone else {}),
            "group_weight": self._per_group([1.0] * len(groups)),
            **{name: self._per_group(numbers) for name, numbers in values.items()},
        }

    def _places(self, bundles: Sequence[Bundle], none: int) -> dict[str, np.ndarray]:
        """The arrays `[R, T]`, with the rows of this part only."""
        own = range(self._rows)[self._part or slice(None)]
        names = ("tokens", "targets", "positions", "segment_ids", "ends", "node_ids")
        micro = {name: np.zeros((len(own), self._length), np.int32) for name in names}
        micro["node_ids"][:] = none
        tries = [trie for found in bundles for trie in found.tries]
        places = FirstFitRows(self._rows, self._length).place([len(trie) for trie in tries])
        assert places is not None  # `split` has placed the same tries in the same order
        node = 0
        for trie, (row, start) in zip(tries, places, strict=True):
            if row in own:
                here = own.index(row), slice(start, start + len(trie))
                micro["tokens"][here] = trie.tokens
                micro["targets"][here] = trie.targets
                micro["positions"][here] = trie.positions
                micro["segment_ids"][here] = micro["segment_ids"][here[0]].max() + 1
                micro["ends"][here] = trie.ends + start  # as row positions
                micro["node_ids"][here] = np.where(trie.node_ids < 0, none, trie.node_ids + node)
            node += trie.num_nodes
        weights = (micro["node_ids"] < none).astype(np.float32)
        return micro | {"weights": weights}


def _num_places(bundles: Sequence[Bundle]) -> int:
    return sum(len(trie) for found in bundles for trie in found.tries)
