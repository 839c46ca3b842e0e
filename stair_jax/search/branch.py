"""The nodes of a tree as the host knows them, and the records that are made of them."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stair_jax.decoding.requests import Completion, Handle
from stair_jax.search.records import Node


@dataclass
class Step:
    """A node on the host, with its own evaluations."""

    parent: int
    path: tuple[int, ...]  # child numbers from the root: names the node in random keys
    tokens: tuple[int, ...]  # of the step; of the root, those of the rendered prompt
    answer: tuple[int, ...]  # of the answer up to and with the step
    text: str
    prior: float = 0.0
    terminal: bool = False
    handle: Handle | None = None
    expansions: int = 0
    evaluations: int = 0
    reusable: Completion | None = None  # the first step of its first rollout
    judgements: dict[int, dict[str, Any]] = field(default_factory=dict)  # by visit

    @property
    def rewards(self) -> list[float]:
        """Of the evaluations that gave one."""
        given = (entry["reward"] for _, entry in sorted(self.judgements.items()))
        return [reward for reward in given if reward is not None]


class _Total(NamedTuple):
    """Evaluations of a node, or of a whole subtree."""

    visits: int = 0  # with a reward
    reward: float = 0.0  # summed
    missing: int = 0

    def __add__(self, other: "_Total") -> "_Total":  # type: ignore[override]
        return _Total(*map(operator.add, self, other))


def make_nodes(steps: Sequence[Step], visits: Sequence[int]) -> tuple[Node, ...]:
    """The nodes of a record.

    Args:
      steps: children after their parents, the root first.
      visits: visits of each node in the kernel, which alone knows how often a terminal node was
        visited again; those of nodes visited after the budget are 0, and count as one.
    """
    totals = [_own(step, max(count, 1)) for step, count in zip(steps, visits, strict=False)]
    for index in range(len(steps) - 1, 0, -1):
        parent = steps[index].parent
        totals[parent] = totals[parent] + totals[index]
    return tuple(map(_node, steps, totals))


def _own(step: Step, visits: int) -> _Total:
    """The evaluations of the node itself."""
    rewards = step.rewards
    if step.terminal:  # one reward, used again on each visit
        return _Total(visits, visits * rewards[0]) if rewards else _Total(missing=visits)
    return _Total(len(rewards), math.fsum(rewards), step.evaluations - len(rewards))


def _node(step: Step, total: _Total) -> Node:
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
