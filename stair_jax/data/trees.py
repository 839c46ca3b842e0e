"""Sequences that share prefixes, laid out as a trie: each shared part once.

A node of the trie is a run of tokens that the same sequences go through. Its places have, one for
each of its tokens, that token as the target, the token before it as the input, and the input's
position in the sequence. So a place stands for a prefix of two or more tokens, however many
sequences begin with it, and several next tokens of one prefix are several places.

Nodes lie in preorder. A place sees those before it whose subtree has not ended, which are the
prefixes of its own: attention over the row gives what it would give for each sequence alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stair_jax.data.packing import Example


@dataclass(frozen=True)
class Trie:
    """N sequences in P places; the loss counts C of its nodes for one sequence or more."""

    tokens: np.ndarray  # [P] int32, inputs
    targets: np.ndarray  # [P] int32
    positions: np.ndarray  # [P] int32, of the inputs in their sequences
    ends: np.ndarray  # [P] int32, the first place behind the subtree of the place's node
    node_ids: np.ndarray  # [P] int32, 0 to C - 1; -1 where no sequence counts the target
    runs: tuple[tuple[int, ...], ...]  # for each sequence the nodes whose targets count for it

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_nodes(self) -> int:
        """C."""
        return int(self.node_ids.max(initial=-1)) + 1


def build(examples: Sequence[Example]) -> Trie:
    """The trie of sequences; a node ends too where the loss mask of one of them changes.

    Args:
      examples: N of them; equal ones may occur. The first token of a sequence is no target, so
        its mask does not count, and a sequence of one token has no place.
    """
    sequences = [_Sequence.of(example) for example in examples]
    nodes = list(_preorder(sequences))
    sizes = [node.end - node.start for node in nodes]
    subtrees = list(sizes)
    for number in range(len(nodes) - 1, 0, -1):
        if (parent := nodes[number].parent) >= 0:
            subtrees[parent] += subtrees[number]
    starts = np.cumsum([0, *sizes])[:-1]
    counted = np.array([bool(node.counted) for node in nodes], bool)
    ids = np.where(counted, np.cumsum(counted) - 1, -1)
    runs: list[list[int]] = [[] for _ in sequences]
    for node, number in zip(nodes, ids.tolist(), strict=True):
        for index in node.counted:
            runs[index].append(number)
    pieces = [(sequences[node.through].tokens, node.start, node.end) for node in nodes]
    return Trie(
        tokens=_joined([tokens[start - 1 : end - 1] for tokens, start, end in pieces]),
        targets=_joined([tokens[start:end] for tokens, start, end in pieces]),
        positions=_joined([np.arange(start - 1, end - 1) for _, start, end in pieces]),
        ends=np.repeat(starts + subtrees, sizes).astype(np.int32),
        node_ids=np.repeat(ids, sizes).astype(np.int32),
        runs=tuple(map(tuple, runs)),
    )


@dataclass(frozen=True)
class Bundle:
    """Groups of sequences that are laid out together.

    Attributes:
      members: their numbers.
      tries: one of all sequences, or, of one group that does not fit into a row, one of each. In
        either case the `runs` one after another are those of the members' sequences in order.
    """

    members: tuple[int, ...]
    tries: tuple[Trie, ...]

    @property
    def runs(self) -> list[tuple[int, ...]]:
        """Of each sequence, with nodes numbered through all the tries."""
        found, before = [], 0
        for trie in self.tries:
            found += [tuple(before + node for node in run) for run in trie.runs]
            before += trie.num_nodes
        return found


def bundle(groups: Sequence[Sequence[Example]], length: int, max_runs: int) -> list[Bundle]:
    """Lays groups of sequences out in as few tries as a greedy cut needs.

    Groups that begin alike come together. Each trie takes as many as fit; a group that is alone
    and still too long is laid out as one trie for each of its sequences.

    Args:
      groups: numbered from 0; those of one prompt, so that they share what they begin with.
      length: the most places of a trie.
      max_runs: the most nodes that may count for one sequence.

    Raises:
      ValueError: a sequence is too long, or its mask has too many runs, even alone.
    """
    order = sorted(range(len(groups)), key=lambda number: list(groups[number][0].tokens))
    bundles = []
    while order:
        taken, trie = _most(groups, order, length, max_runs)
        members, order = tuple(order[:taken]), order[taken:]
        if trie is not None:
            bundles.append(Bundle(members, (trie,)))
            continue
        alone = tuple(build([example]) for example in groups[members[0]])
        for single in alone:
            if not _fits(single, length, max_runs):
                raise ValueError(
                    f"a sequence of {len(single) + 1} tokens, of which the loss counts "
                    f"{len(single.runs[0])} runs, is more than {length} places or {max_runs} runs"
                )
        bundles.append(Bundle(members, alone))
    return bundles


def _most(
    groups: Sequence[Sequence[Example]], order: Sequence[int], length: int, max_runs: int
) -> tuple[int, Trie | None]:
    """How many of the next groups fit into one trie, and it; (1, None) if the first does not."""
    best: tuple[int, Trie | None] = (1, None)
    low, high, count = 1, len(order), len(order)  # more groups never make a trie smaller
    while low <= high:
        trie = build([example for number in order[:count] for example in groups[number]])
        if _fits(trie, length, max_runs):
            best, low = (count, trie), count + 1
        else:
            high = count - 1
        count = (low + high) // 2
    return best


def _fits(trie: Trie, length: int, max_runs: int) -> bool:
    return len(trie) <= length and max(map(len, trie.runs), default=0) <= max_runs


@dataclass(frozen=True)
class _Sequence:
    tokens: np.ndarray  # [L] int32
    mask: np.ndarray  # [L] bool
    bounds: np.ndarray  # [..] where a run of equal masks ends; L is the last

    @classmethod
    def of(cls, example: Example) -> "_Sequence":
        mask = np.asarray(example.loss_mask, bool)
        bounds = np.append(np.flatnonzero(mask[1:] != mask[:-1]) + 1, len(mask))
        return cls(np.asarray(example.tokens, np.int32), mask, bounds)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class _Node:
    """Tokens `start` to `end` of the sequence `through`, and of all that go the same way."""

    parent: int
    start: int
    end: int
    through: int
    counted: tuple[int, ...]  # the sequences for which its tokens count


def _preorder(sequences: Sequence[_Sequence]) -> Iterator[_Node]:
    """The nodes; a token has the same number in the sequence for all that go through it."""
    roots = _branches(sequences, range(len(sequences)), 0)
    waiting = [
        (-1, 1, branch) for root in roots[::-1] for branch in _branches(sequences, root, 1)[::-1]
    ]
    number = 0
    while waiting:
        parent, start, through = waiting.pop()
        end = _common_end(sequences, through, start)
        counted = tuple(index for index in through if sequences[index].mask[start])
        yield _Node(parent, start, end, through[0], counted)
        branches = _branches(sequences, through, end)
        waiting += [(number, end, branch) for branch in branches[::-1]]
        number += 1


def _branches(sequences: Sequence[_Sequence], through: Sequence[int], at: int) -> list[list[int]]:
    """The sequences that go on at token `at`, by that token, in the order in which they come."""
    branches: dict[int, list[int]] = {}
    for index in through:
        if at < len(sequences[index]):
            branches.setdefault(int(sequences[index].tokens[at]), []).append(index)
    return list(branches.values())


def _common_end(sequences: Sequence[_Sequence], through: Sequence[int], start: int) -> int:
    """How far sequences that have the token `start` in common, and its masks, go on alike."""
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
