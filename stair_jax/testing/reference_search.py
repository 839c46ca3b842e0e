"""The search in plain Python: node objects and recursion, one tree at a time.

Written from algorithm 1 of the paper (arXiv 2502.02384) and sharing no code with the tree kernel,
so that a search can be compared with it. Here a node has its children as objects, and every choice
is worked out anew from the statistics when a walk comes to it.

A choice takes the first of the highest scores (`tie_break="first"` of `SearchConfig`). `margin` is
the smallest gap between the highest score and the next lower one that a search has met: below the
rounding of a float32, an implementation in float32 may choose another child.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

Path = tuple[int, ...]  # the number of the child taken at each depth, from the root


@dataclass(eq=False)
class ReferenceNode:
    """A step of an answer; the root is the prompt.

    Attributes:
      index: in the order in which nodes were made; the root is 0.
      parent: None for the root.
      path: from the root; its length is the depth.
      is_terminal: the step ends the answer.
      prior: of the step, read by "puct" alone.
      children: in order.
      visits: rewards that were backed up through the node.
      pending: iterations under way through the node (`ReferenceLanes`).
      total: the sum of these rewards.
      own_reward: of a terminal node, once it is known.
    """

    index: int
    parent: "ReferenceNode | None" = None
    path: Path = ()
    is_terminal: bool = False
    prior: float = 0.0
    children: list["ReferenceNode"] = field(default_factory=list)
    visits: int = 0
    pending: int = 0
    total: Any = 0.0
    own_reward: Any = None

    @property
    def depth(self) -> int:
        """Steps from the root, whose depth is 0."""
        return len(self.path)


class ReferenceActor(Protocol):
    """What a search asks: in place of the model that samples, and of the judge."""

    def expand(self, node: ReferenceNode) -> list[tuple[bool, float]]:
        """(is terminal, prior) of each distinct step sampled after the node; may be empty."""

    def reward(self, node: ReferenceNode) -> float | None:
        """The reward of a rollout from the node, or of its own answer; None: missing."""


@dataclass
class ReferenceSearch:
    """One tree, one iteration after the other.

    Attributes:
      actor: what is asked for steps and rewards.
      num_iterations: budget of the tree.
      num_children: most children of a node.
      max_depth: nodes at this depth are not expanded.
      c: weight of exploration.
      score: "ucb1" or "puct".
      capacity: most nodes of the tree.
      number: rounds every stored sum and mean: `float`, or `numpy.float32` to compare with the
        kernel bit by bit.
      root, nodes: the tree; `nodes` in the order in which they were made.
      requests: ("expand" | "rollout" | "score", path), in order.
      margin: see the top of this file; infinite before the first choice.
    """

    actor: ReferenceActor
    num_iterations: int
    num_children: int = 4
    max_depth: int = 7
    c: float = 1.5
    score: str = "ucb1"
    capacity: float = math.inf
    number: Callable[[Any], Any] = float

    def __post_init__(self) -> None:
        """The root alone."""
        self.root = ReferenceNode(0, total=self.number(0))
        self.nodes = [self.root]
        self.requests: list[tuple[str, Path]] = []
        self.margin = math.inf

    def run(self) -> "ReferenceSearch":
        """All iterations; `finish` follows."""
        for _ in range(self.num_iterations):
            self.descend(self.root)
        return self

    def finish(self) -> "ReferenceSearch":
        """Visits every node that was never visited, in the order in which they were made."""
        for node in [node for node in self.nodes if node.visits == 0]:
            reward = self.evaluate(node)
            above: ReferenceNode | None = node
            while above is not None:
                self.record(above, reward)
                above = above.parent
        return self

    def descend(self, node: ReferenceNode) -> Any:
        """One iteration below the node: the reward, None if missing."""
        if not node.children and self.may_grow(node):
            self.grow(node)
            reward = self.leaf(self.pick(node)) if node.children else self.evaluate(node)
        elif node.children:
            reward = self.descend(self.pick(node))
        else:
            reward = self.evaluate(node)
        self.record(node, reward)
        return reward

    def leaf(self, node: ReferenceNode) -> Any:
        """The first visit of a node: its reward, None if missing."""
        reward = self.evaluate(node)
        self.record(node, reward)
        return reward

    def may_grow(self, node: ReferenceNode) -> bool:
        """Whether a walk that ends on this leaf expands it."""
        room = len(self.nodes) + self.num_children <= self.capacity
        return node.visits > 0 and not node.is_terminal and node.depth < self.max_depth and room

    def grow(self, node: ReferenceNode) -> None:
        """Expands a leaf."""
        self.requests.append(("expand", node.path))
        for position, (is_terminal, prior) in enumerate(self.actor.expand(node)):
            child = ReferenceNode(
                index=len(self.nodes),
                parent=node,
                path=(*node.path, position),
                is_terminal=is_terminal,
                prior=prior,
                total=self.number(0),
            )
            node.children.append(child)
            self.nodes.append(child)

    def evaluate(self, node: ReferenceNode) -> Any:
        """The reward of a node, None if missing; that of a terminal node is asked for once."""
        if node.own_reward is not None:
            return node.own_reward
        self.requests.append(("score" if node.is_terminal else "rollout", node.path))
        given = self.actor.reward(node)
        reward = None if given is None else self.number(given)
        if node.is_terminal:
            node.own_reward = self.stand_in(node) if reward is None else reward
        return reward

    def stand_in(self, node: ReferenceNode) -> Any:
        """What a node takes for a missing reward: a sum that leaves its mean where it is."""
        if node.visits:
            return self.mean(node)
        return self.number(0) if node.parent is None else self.mean(node.parent)

    def record(self, node: ReferenceNode, reward: Any) -> None:
        """Adds a reward; a node goes before its parent, whose mean is still the old one."""
        added = self.stand_in(node) if reward is None else reward
        node.total = self.number(node.total + added)
        node.visits += 1

    def mean(self, node: ReferenceNode) -> Any:
        """The value of a node; 0 before the first visit."""
        return self.number(node.total / self.number(node.visits)) if node.visits else self.number(0)

    def pick(self, node: ReferenceNode) -> ReferenceNode:
        """The child with the highest score, the first of equals."""
        scores = [float(self.value(node, child)) for child in node.children]
        best = max(scores)
        lower = [score for score in scores if score < best]
        if lower:
            self.margin = min(self.margin, best - max(lower))
        return node.children[scores.index(best)]

    def value(self, node: ReferenceNode, child: ReferenceNode) -> float:
        """The score of a child: UCB1, or PUCT; 100 times the weight before the first visit."""
        weight = self.c if self.score == "ucb1" else self.c * child.prior
        visits = child.visits + child.pending
        above = node.visits + node.pending
        if visits == 0:
            return 100 * weight
        if self.score == "ucb1":
            bonus = math.sqrt(math.log(above) / visits)
        else:
            bonus = math.sqrt(above) / (1 + visits)
        return self.mean(child) + weight * bonus


@dataclass
class ReferenceLanes(ReferenceSearch):
    """One tree with several iterations under way (WU-UCT, Liu et al., ICLR 2020).

    "Watch the unobserved": where children are compared, an iteration under way counts as a visit.
    `fill` starts iterations, `deliver` ends or continues one.

    Attributes:
      lanes: iterations under way at most.
      at: of each lane, the node of its request; None where it is free.
      asked: of each lane, what it asks for.
      launched, finished: iterations.
    """

    lanes: int = 1

    def __post_init__(self) -> None:
        """The root alone, and free lanes."""
        super().__post_init__()
        self.at: list[ReferenceNode | None] = [None] * self.lanes
        self.asked = [""] * self.lanes
        self.launched = self.finished = 0

    def fill(self) -> list[tuple[int, str, Path]]:
        """Starts iterations in the free lanes: (lane, what it asks for, path)."""
        started = []
        while None in self.at and self.launched < self.num_iterations:
            node = self.root
            while node.children:
                node = self.pick(node)
            if node.own_reward is not None:
                self.launched += 1
                self.end(node, node.own_reward)
                continue
            if node.is_terminal and node in self.at:
                break
            lane = self.at.index(None)
            self.launched += 1
            self.pend(node, 1)
            what = "score" if node.is_terminal else "rollout"
            if self.may_grow(node) and not self.grows(node):
                what = "expand"
            started.append(self.ask(lane, node, what))
        return started

    def deliver(self, lane: int) -> list[tuple[int, str, Path]]:
        """Has the actor answer the request of a lane: what the lane asks for next, if anything."""
        node, what = self.at[lane], self.asked[lane]
        assert node is not None, "the lane has no request"
        self.at[lane] = None
        if what != "expand":
            given = self.actor.reward(node)
            reward = None if given is None else self.number(given)
            if what == "score":
                node.own_reward = self.stand_in(node) if reward is None else reward
            self.pend(node, -1)
            self.end(node, reward)
            return []
        self.grow(node)
        child = self.pick(node) if node.children else node
        child.pending += child is not node
        return [self.ask(lane, child, "score" if child.is_terminal else "rollout")]

    def ask(self, lane: int, node: ReferenceNode, what: str) -> tuple[int, str, Path]:
        """Writes a request down."""
        self.at[lane], self.asked[lane] = node, what
        return lane, what, node.path

    def grows(self, node: ReferenceNode) -> bool:
        """Whether an expansion of the node is under way."""
        return any(n is node and a == "expand" for n, a in zip(self.at, self.asked, strict=True))

    def may_grow(self, node: ReferenceNode) -> bool:
        """As without lanes; the expansions under way need room as well."""
        others = sum(
            n is not None and a == "expand" for n, a in zip(self.at, self.asked, strict=True)
        )
        room = len(self.nodes) + (1 + others) * self.num_children <= self.capacity
        return room and super().may_grow(node)

    def pend(self, node: ReferenceNode, number: int) -> None:
        """Counts an iteration under way through the node, or (-1) takes it out again."""
        above: ReferenceNode | None = node
        while above is not None:
            above.pending += number
            above = above.parent

    def end(self, node: ReferenceNode, reward: Any) -> None:
        """Backs the reward of an iteration up."""
        self.finished += 1
        above: ReferenceNode | None = node
        while above is not None:
            self.record(above, reward)
            above = above.parent


class RandomActor:
    """Steps and rewards that depend on a seed, the path of a node and how often it was asked.

    So it gives the same answers to searches that ask in another order.
    """

    def __init__(
        self,
        seed: int,
        num_children: int,
        *,
        terminal: float = 0.2,
        missing: float = 0.0,
        failing: float = 0.1,
        scale: float = 1.0,
        root_children: int = 0,
    ):
        """An actor that was not asked yet.

        Args:
          seed: of all draws.
          num_children: most steps of an expansion.
          terminal: chance that a step ends the answer.
          missing: chance that there is no reward.
          failing: chance that an expansion gives no steps.
          scale: of the rewards; half of them are multiples of scale / 4 within 3 scale, so that
            some are equal, the others are normal with this standard deviation.
          root_children: most steps of an expansion of the root; 0: as of any node.
        """
        self.seed, self.num_children, self.scale = seed, num_children, scale
        self.terminal, self.missing, self.failing = terminal, missing, failing
        self.root_children = root_children or num_children
        self._asked: Counter[tuple[str, Path]] = Counter()

    def children(self, path: Path) -> list[tuple[bool, float]]:
        """(is terminal, prior) of each step after the node at `path`."""
        draw = self._draw("expand", path)
        if draw.random() < self.failing:
            return []
        most = self.num_children if path else self.root_children
        count = draw.randint(1, most)  # fewer: duplicates were dropped
        return [(draw.random() < self.terminal, draw.randint(1, 8) / 8) for _ in range(count)]

    def score(self, path: Path) -> float | None:
        """A reward of the node at `path`; None: missing."""
        draw = self._draw("reward", path)
        if draw.random() < self.missing:
            return None
        return self.scale * (draw.randint(-12, 12) / 4 if draw.random() < 0.5 else draw.gauss(0, 1))

    def expand(self, node: ReferenceNode) -> list[tuple[bool, float]]:
        """As `children`."""
        return self.children(node.path)

    def reward(self, node: ReferenceNode) -> float | None:
        """As `score`."""
        return self.score(node.path)

    def _draw(self, kind: str, path: Path) -> random.Random:
        self._asked[kind, path] += 1
        return random.Random(f"{self.seed} {kind} {path} {self._asked[kind, path]}")
