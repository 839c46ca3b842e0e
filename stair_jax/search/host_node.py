"""Nodes of a search tree on the host, and their conversion into the nodes of a record."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stair_jax.decoding.requests import Completion, Handle
from stair_jax.search.tree_records import Node


@dataclass
class HostNode:
    """A node on the host, with its own evaluations (those of its descendants are not included)."""

    parent: int  # -1 for the root
    path: tuple[int, ...]  # child numbers from the root; identifies the node in random keys
    tokens: tuple[int, ...]  # of the step; of the root: the rendered prompt and the start
    answer: tuple[int, ...]  # tokens of the answer up to and including the step
    text: str
    prior: float = 0.0
    terminal: bool = False  # the step ends the answer
    handle: Handle | None = None  # of prompt and answer in the engine's cache
    expansions: int = 0
    evaluations: int = 0  # started, not necessarily complete
    reusable: Completion | None = None  # first step of its first rollout, to become a child
    rollout: Completion | None = None  # its first one, if its children may share it
    shared: "SharedRollout | None" = None  # in place of its first rollout
    judgements: dict[int, dict[str, Any]] = field(default_factory=dict)  # by number of evaluation

    @property
    def rewards(self) -> list[float]:
        """Rewards of the evaluations that gave one, in the order of the evaluations."""
        given = (entry["reward"] for _, entry in sorted(self.judgements.items()))
        return [reward for reward in given if reward is not None]


class SharedRollout(NamedTuple):
    """The first rollout of a node's parent, where it passes through the node.

    Attributes:
      rest: what it samples after the node's step, without a handle.
      entry: of its evaluation.
    """

    rest: Completion
    entry: dict[str, Any]


class _Total(NamedTuple):
    """Evaluations of a node, or summed over its subtree."""

    visits: int = 0  # with a reward
    reward: float = 0.0  # sum of these rewards
    missing: int = 0  # without a reward

    def __add__(self, other: "_Total") -> "_Total":  # type: ignore[override]
        return _Total(*map(operator.add, self, other))


def make_nodes(steps: Sequence[HostNode], visits: Sequence[int]) -> tuple[Node, ...]:
    """The nodes of a tree record: values are means over the real rewards of each subtree.

    The statistics are added up here again instead of being read from the jitted search, which
    substitutes a mean for a missing reward and sums in float32.

    Args:
      steps: the nodes; parents before their children, the root first.
      visits: visits of each node in the jitted search, at least as many entries as nodes. Used for
        terminal nodes, whose repeated visits the host does not see; a node visited only after the
        budget has 0 there and counts as visited once.
    """
    # `visits` has an entry for each node that there is room for: hence not strict.
    totals = [_own(step, max(count, 1)) for step, count in zip(steps, visits, strict=False)]
    # Children have higher numbers than their parents: going down, a subtree is complete when it is
    # added to its parent.
    for index in range(len(steps) - 1, 0, -1):
        parent = steps[index].parent
        totals[parent] = totals[parent] + totals[index]
    return tuple(map(_node, steps, totals))


def _own(step: HostNode, visits: int) -> _Total:
    """The evaluations of the node itself."""
    rewards = step.rewards
    if step.terminal:  # judged once; each further visit reuses the reward
        return _Total(visits, visits * rewards[0]) if rewards else _Total(missing=visits)
    return _Total(len(rewards), math.fsum(rewards), step.evaluations - len(rewards))


def _node(step: HostNode, total: _Total) -> Node:
    return Node(
        parent=step.parent,
        text=step.text,
        tokens=step.tokens,
        depth=len(step.path),
        visits=total.visits,
        value=total.reward / total.visits if total.visits else None,
        reward=step.rewards[0] if step.terminal and step.rewards else None,
        terminal=step.terminal,
        prior=step.prior,
        missing=total.missing,
        judgements=[entry for _, entry in sorted(step.judgements.items())],
    )
