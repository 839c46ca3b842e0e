"""Tries: sequences with shared prefixes in one row, each shared part once (for tree attention).

A node of the trie is a run of tokens common to the same set of sequences. It has one row position
per token: the token is the target, the token before it in the sequence is the input, and the
position id (for RoPE) is that of the input. So there is one row position per distinct prefix of two
or more tokens, however many sequences start with it. Inputs are shifted by one in this way because
the last token of a shared prefix has several next tokens: each of them is a position of its own, in
a child that begins with that last token as its input.

Nodes are laid out in preorder. A row position attends to the earlier ones whose subtree has not
ended yet, i.e. to the prefixes of its own prefix (`Trie.ends` is this mask in one array). Attention
over the row then gives the same result as over each sequence alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from stair_jax.data.packing import COUNTED, SFT_ALONE, Example


@dataclass(frozen=True)
class Trie:
    """N sequences in P row positions; C of the nodes count in the loss of some sequence."""

    tokens: np.ndarray  # [P] int32, input token ids
    targets: np.ndarray  # [P] int32, target token ids
    positions: np.ndarray  # [P] int32, position ids: index of the input token in its sequence
    ends: np.ndarray  # [P] int32, first row position after the subtree of the position's node
    node_ids: np.ndarray  # [P] int32, 0 to C - 1; -1 where no sequence counts the target
    runs: tuple[tuple[int, ...], ...]  # per sequence, the nodes whose targets count for it
    sft_runs: tuple[tuple[int, ...], ...]  # the same, of those that the SFT term alone counts

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_nodes(self) -> int:
        """C, the number of nodes that count in the loss."""
        return int(self.node_ids.max(initial=-1)) + 1


def build_trie(examples: Sequence[Example], sft_alone: bool = False) -> Trie:
    """Builds the trie of N sequences.

    A node also ends where the loss mask of one of its sequences changes, so that a node counts for
    a sequence as a whole or not at all.

    Args:
      examples: N sequences, possibly equal. The first token of a sequence is never a target: its
        mask is ignored, and a sequence of a single token has no row position.
      sft_alone: whether targets of mask SFT_ALONE count, in `sft_runs`; else they are as those of
        mask 0.
    """
    sequences = [_Sequence.of(example, sft_alone) for example in examples]
    nodes = list(_preorder(sequences))
    sizes = [node.end - node.start for node in nodes]
    subtrees = list(sizes)
    # Children come after their parents in preorder: backwards, a subtree is complete when added.
    for number in range(len(nodes) - 1, 0, -1):
        if (parent := nodes[number].parent) >= 0:
            subtrees[parent] += subtrees[number]
    starts = np.cumsum([0, *sizes])[:-1]
    counted = np.array([bool(node.counted or node.sft_alone) for node in nodes], bool)
    ids = np.where(counted, np.cumsum(counted) - 1, -1)
    runs: list[list[int]] = [[] for _ in sequences]
    sft_runs: list[list[int]] = [[] for _ in sequences]
    for node, number in zip(nodes, ids.tolist(), strict=True):
        for index in node.counted:
            runs[index].append(number)
        for index in node.sft_alone:
            sft_runs[index].append(number)
    pieces = [(sequences[node.through].tokens, node.start, node.end) for node in nodes]
    return Trie(
        tokens=_joined([tokens[start - 1 : end - 1] for tokens, start, end in pieces]),
        targets=_joined([tokens[start:end] for tokens, start, end in pieces]),
        positions=_joined([np.arange(start - 1, end - 1) for _, start, end in pieces]),
        ends=np.repeat(starts + subtrees, sizes).astype(np.int32),
        node_ids=np.repeat(ids, sizes).astype(np.int32),
        runs=tuple(map(tuple, runs)),
        sft_runs=tuple(map(tuple, sft_runs)),
    )


@dataclass(frozen=True)
class Bundle:
    """Groups of sequences that are laid out together.

    Attributes:
      members: indices of the groups.
      tries: one trie of all their sequences; or, for a single group that does not fit into a row,
        one trie per sequence. In both cases the concatenated `runs` are those of the members'
        sequences, in order.
    """

    members: tuple[int, ...]
    tries: tuple[Trie, ...]

    @property
    def runs(self) -> list[tuple[int, ...]]:
        """Nodes that count for each sequence, numbered consecutively over all the tries."""
        return self._numbered([trie.runs for trie in self.tries])

    @property
    def sft_runs(self) -> list[tuple[int, ...]]:
        """The same of the nodes that the SFT term alone counts."""
        return self._numbered([trie.sft_runs for trie in self.tries])

    def _numbered(self, parts: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
        found, before = [], 0
        for trie, runs in zip(self.tries, parts, strict=True):
            found += [tuple(before + node for node in run) for run in runs]
            before += trie.num_nodes
        return found


def bundle_tries(
    groups: Sequence[Sequence[Example]], length: int, max_runs: int, max_sft_runs: int = 0
) -> list[Bundle]:
    """Lays out groups of sequences in few tries, greedily.

    The groups are sorted by their tokens, so that those with long common prefixes are neighbours,
    and each trie takes as many of the next groups as fit. A group that does not fit into a trie by
    itself is laid out as one trie per sequence.

    Args:
      groups: groups of sequences with a common prefix, e.g. those of one prompt.
      length: most row positions of a trie.
      max_runs: most nodes that may count for one sequence.
      max_sft_runs: most nodes that the SFT term alone may count for one; 0: it counts none.

    Raises:
      ValueError: a single sequence is too long, or its loss mask has too many runs.
    """
    order = sorted(range(len(groups)), key=lambda number: list(groups[number][0].tokens))
    fits = partial(_fits, length, max_runs, max_sft_runs)
    bundles = []
    while order:
        taken, trie = _most(groups, order, fits, bool(max_sft_runs))
        members, order = tuple(order[:taken]), order[taken:]
        if trie is not None:
            bundles.append(Bundle(members, (trie,)))
            continue
        alone = tuple(build_trie([e], bool(max_sft_runs)) for e in groups[members[0]])
        for single in alone:
            if not fits(single):
                raise ValueError(
                    f"a sequence of {len(single) + 1} tokens, of which the loss counts "
                    f"{len(single.runs[0])} runs, is more than {length} places or {max_runs} runs"
                )
        bundles.append(Bundle(members, alone))
    return bundles


def _most(
    groups: Sequence[Sequence[Example]],
    order: Sequence[int],
    fits: Callable[[Trie], bool],
    sft_alone: bool,
) -> tuple[int, Trie | None]:
    """(number of the next groups that fit into one trie, that trie); (1, None) if not even one.

    A binary search, as adding groups never makes a trie smaller. It tries all groups first, which
    is the usual case.
    """
    best: tuple[int, Trie | None] = (1, None)
    low, high, count = 1, len(order), len(order)
    while low <= high:
        examples = [example for number in order[:count] for example in groups[number]]
        trie = build_trie(examples, sft_alone)
        if fits(trie):
            best, low = (count, trie), count + 1
        else:
            high = count - 1
        count = (low + high) // 2
    return best


def _fits(length: int, max_runs: int, max_sft_runs: int, trie: Trie) -> bool:
    return (
        len(trie) <= length
        and max(map(len, trie.runs), default=0) <= max_runs
        and max(map(len, trie.sft_runs), default=0) <= max_sft_runs
    )


@dataclass(frozen=True)
class _Sequence:
    tokens: np.ndarray  # [L] int32
    mask: np.ndarray  # [L] int, the loss mask
    bounds: np.ndarray  # ascending ends of the runs of equal mask values; the last is L

    @classmethod
    def of(cls, example: Example, sft_alone: bool) -> "_Sequence":
        mask = np.asarray(example.loss_mask)
        mask = mask if sft_alone else np.where(mask == COUNTED, COUNTED, 0)
        bounds = np.append(np.flatnonzero(mask[1:] != mask[:-1]) + 1, len(mask))
        return cls(np.asarray(example.tokens, np.int32), mask, bounds)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class _TrieNode:
    """Tokens `start` to `end` (exclusive) of the sequence `through` and of all that share them."""

    parent: int  # -1 for a root
    start: int
    end: int
    through: int  # index of one sequence that goes through the node
    counted: tuple[int, ...]  # indices of the sequences for which its tokens count
    sft_alone: tuple[int, ...]  # of those whose SFT term alone counts them


def _preorder(sequences: Sequence[_Sequence]) -> Iterator[_TrieNode]:
    """The nodes of the trie in preorder.

    Since only prefixes are shared, a token has the same index in all sequences that go through it.
    """
    # First tokens are no targets: sequences are divided by them, and nodes start at token 1. The
    # stack is filled in reverse, as the last entry is popped first.
    roots = _branches(sequences, range(len(sequences)), 0)
    waiting = [
        (-1, 1, branch) for root in roots[::-1] for branch in _branches(sequences, root, 1)[::-1]
    ]
    number = 0
    while waiting:
        parent, start, through = waiting.pop()
        end = _common_end(sequences, through, start)
        counted, alone = (
            tuple(index for index in through if sequences[index].mask[start] == value)
            for value in (COUNTED, SFT_ALONE)
        )
        yield _TrieNode(parent, start, end, through[0], counted, alone)
        branches = _branches(sequences, through, end)
        waiting += [(number, end, branch) for branch in branches[::-1]]
        number += 1


def _branches(sequences: Sequence[_Sequence], through: Sequence[int], at: int) -> list[list[int]]:
    """The sequences that have a token at index `at`, grouped by it, in order of appearance."""
    branches: dict[int, list[int]] = {}
    for index in through:
        if at < len(sequences[index]):
            branches.setdefault(int(sequences[index].tokens[at]), []).append(index)
    return list(branches.values())


def _common_end(sequences: Sequence[_Sequence], through: Sequence[int], start: int) -> int:
    """End of the node at `start`: where one of the sequences ends, differs, or changes its mask.

    Args:
      sequences: all sequences.
      through: indices of those in the node; they have the token at `start` in common.
      start: index of the first token of the node.
    """
    first = sequences[through[0]].tokens
    end = len(first)
    for index in through:
        sequence = sequences[index]
        bound = np.searchsorted(sequence.bounds, start, side="right")
        end = min(end, int(sequence.bounds[bound]))
        if index != through[0]:
            differs = first[start:end] != sequence.tokens[start:end]
            if differs.any():
                end = start + int(differs.argmax())
    return end


def _joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *pieces]).astype(np.int32)
