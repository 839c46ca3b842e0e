"""The candidates for preference pairs of one tree as arrays, and which thresholds they pass."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stair_jax.search.tree_records import TreeRecord
from stair_jax.text.steps import breaks_output

Nodes = NDArray[np.int64]
Mask = NDArray[np.bool_]
Pairs = list[tuple[int, int]]  # (better node, worse node)


class Candidates:
    """The nodes of a tree as arrays, to test all pairs of a group at once.

    A tree may have hundreds of nodes at one depth, and so tens of thousands of candidates.

    Attributes:
      value: of each node; NaN where it has none.
      visits: of each node; infinite for terminal nodes, which no threshold of visits leaves out.
      parent: of each node; -1 for the root.
      terminals: the nodes that end an answer.
    """

    def __init__(self, record: TreeRecord, max_tokens: int):
        """Takes the nodes of a finished tree; `max_tokens` is the longest pair, with its prompt."""
        nodes = record.nodes
        lengths: list[float] = []
        for node in nodes:
            # From the root, whose tokens are the prompt; parents come before their children.
            own = math.nan if node.tokens is None else len(node.tokens)  # nan is above nothing
            lengths.append(own + (lengths[node.parent] if lengths else 0))
        values = np.array([np.nan if n.value is None else n.value for n in nodes], float)
        self.value = np.where(np.isfinite(values), values, np.nan)
        self.visits = np.array([math.inf if n.terminal else n.visits for n in nodes], float)
        self.parent = np.array([n.parent for n in nodes])
        self.terminals = [index for index, node in enumerate(nodes) if node.terminal]
        self._long = np.array(lengths) > max_tokens
        self._malformed = np.zeros(len(nodes), dtype=bool)
        for index in self.terminals:
            self._malformed[index] = breaks_output("".join(record.answer_texts(record.path(index))))

    def siblings(self) -> tuple[Nodes, Nodes]:
        """All pairs of children of one parent: (better, worse), as two arrays."""
        order = np.argsort(self.parent[1:], kind="stable") + 1
        parent = self.parent[order]
        first, second = [order[:0]], [order[:0]]
        for apart in range(1, len(order)):
            together = parent[:-apart] == parent[apart:]
            if not together.any():
                break
            first.append(order[:-apart][together])
            second.append(order[apart:][together])
        return self._ranked(np.concatenate(first), np.concatenate(second))

    def within(
        self, group: Sequence[int], unless_both: frozenset[int] | set[int] = frozenset()
    ) -> tuple[Nodes, Nodes]:
        """All pairs of a group of nodes: (better, worse), as two arrays.

        Args:
          group: node indices.
          unless_both: pairs with both nodes in this set are left out.
        """
        index = np.asarray(group, dtype=int)
        first, second = np.triu_indices(len(index), 1)
        first, second = index[first], index[second]
        if unless_both:
            inside = np.isin(index, list(unless_both))
            keep = ~np.logical_and.outer(inside, inside)[np.triu_indices(len(index), 1)]
            first, second = first[keep], second[keep]
        return self._ranked(first, second)

    def _ranked(self, first: Nodes, second: Nodes) -> tuple[Nodes, Nodes]:
        swap = self.value[second] > self.value[first]
        return np.where(swap, second, first), np.where(swap, first, second)

    def gap(self, better: Nodes, worse: Nodes) -> NDArray[np.float64]:
        """By how much the values of each pair differ; NaN where one has none."""
        return self.value[better] - self.value[worse]

    def left_out(
        self, better: Nodes, worse: Nodes, v0: float, v1: float, min_visits: int
    ) -> dict[str, Mask]:
        """For each reason, in the order in which they are looked at, the pairs that it leaves out.

        Args:
          better: nodes, and
          worse: the other node of each pair.
          v0: least gap between the values, exclusive.
          v1: least value of the better node.
          min_visits: of both nodes; terminal ones are exempt.
        """
        gap = self.gap(better, worse)
        return {
            "no_value": np.isnan(gap),
            "malformed": self._malformed[better],
            "too_long": self._long[better] | self._long[worse],
            "few_visits": np.minimum(self.visits[better], self.visits[worse]) < min_visits,
            "small_gap": ~(gap > v0),  # negated: true for NaN
            "low_value": self.value[better] < v1,
        }


def passed(better: Nodes, worse: Nodes, left_out: dict[str, Mask], counts: Counter[str]) -> Pairs:
    """The pairs that no reason leaves out.

    Args:
      better: nodes, and
      worse: the other node of each pair.
      left_out: as from `Candidates.left_out`.
      counts: incremented for each other pair, under the first reason that applies.
    """
    keep = np.ones(len(better), dtype=bool)
    for reason, hit in left_out.items():
        counts[reason] += int(np.sum(keep & hit))
        keep &= ~hit
    return list(zip(better[keep].tolist(), worse[keep].tolist(), strict=True))


# Why a tree gives no pair, and what to change; fields of the preferences stage, or of `search.`.
NO_PAIRS = {
    "no_reward": "no two nodes with a reward: see unreadable and missing in what the search said, "
    "and the settings of search.judge",
    "no_siblings": "no step has a sibling (samples were dropped as duplicates, or nothing was "
    "expanded): raise search.temperature, search.more_pairs.resample or search.num_iterations",
    "equal_rewards": "all rewards alike: a judge with finer scores (search.judge.mode), a higher "
    "search.temperature, or other prompts",
    "malformed": "the better side breaks the format of an answer: train on more SFT examples",
    "too_long": "prompt and path are longer than max_tokens: raise max_tokens",
    "few_visits": "too few visits: lower min_visits, or raise search.num_iterations",
    "small_gap": "value gaps of at most v0: lower v0",
    "low_value": "values below v1: lower v1",
    "small_spread": "rewards within min_tree_spread of each other: lower min_tree_spread",
    "small_share": "value gaps of at most v0_share of the tree's spread: lower v0_share",
    "not_well_formed": "a side breaks the format of an answer: leave well_formed out, or train on "
    "more SFT examples",
    "unequal_lengths": "one side much longer than the other: raise length_gap",
    "several": "no pair that a single threshold leaves out: lower v0, v1 and min_visits together",
}


def why_no_pairs(
    values: NDArray[np.float64], gap: NDArray[np.float64], left_out: dict[str, Mask]
) -> str:
    """For which reason a tree gives no pair, a key of `NO_PAIRS`.

    It is the one threshold without which most pairs would be made. Where no pair is left out by one
    threshold alone, it is "several".

    Args:
      values: of all nodes of the tree; NaN where there is none.
      gap: of the candidates, none of which passes.
      left_out: as from `Candidates.left_out`.
    """
    if np.isnan(values).all() or (len(gap) and np.isnan(gap).all()):
        return "no_reward"
    if not len(gap):
        return "no_siblings"
    if not (gap > 0).any():
        return "equal_rewards"
    # A gap of 0 is no gap at all, whatever the thresholds.
    number = sum(hit.astype(int) for hit in left_out.values()) + (np.nan_to_num(gap) == 0)
    alone = {reason: int(np.sum(hit & (number == 1))) for reason, hit in left_out.items()}
    best = max(alone, key=lambda reason: alone[reason])
    return best if alone[best] else "several"
