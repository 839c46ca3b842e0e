"""Reference SI-MCTS (Algorithm 1 of the paper) in plain Python: node objects, one tree at a time.

Independent of the jitted implementation. An actor is any object with

    expand(node) -> list of (is_terminal, prior)     the distinct steps sampled after the node
    reward(node) -> float, or None                   of a rollout or of the node's own answer

Ties go to the first child. `margin` is the smallest gap between the highest and the next lower
score in a search: if it is within float32 rounding, a float32 implementation may choose
differently.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Node:
    """A reasoning step; the root is the prompt."""

    index: int
    parent: "Node | None" = None
    path: tuple[int, ...] = ()
    is_terminal: bool = False
    prior: float = 0.0
    children: list["Node"] = field(default_factory=list)
    visits: int = 0
    pending: int = 0
    total: Any = 0.0
    own_reward: Any = None

    @property
    def depth(self) -> int:
        return len(self.path)


@dataclass
class Search:
    """One tree; `number` (float or numpy.float32) is applied to every stored sum and mean."""

    actor: Any
    num_iterations: int
    num_children: int = 4
    max_depth: int = 7
    c: float = 1.5
    score: str = "ucb1"
    capacity: float = math.inf
    number: Callable[[Any], Any] = float

    def __post_init__(self):
        self.root = Node(0, total=self.number(0))
        self.nodes = [self.root]
        self.requests: list[tuple[str, tuple[int, ...]]] = []
        self.margin = math.inf

    def run(self) -> "Search":
        for _ in range(self.num_iterations):
            self.descend(self.root)
        return self

    def finish(self) -> "Search":
        """Visits every node that was never visited, in order of creation."""
        for node in [node for node in self.nodes if node.visits == 0]:
            reward = self.evaluate(node)
            while node is not None:
                self.record(node, reward)
                node = node.parent
        return self

    def descend(self, node: Node) -> Any:
        """One iteration from the node down; returns the reward, None if missing."""
        if not node.children and self.may_grow(node):
            self.grow(node)
            reward = self.leaf(self.pick(node)) if node.children else self.evaluate(node)
        elif node.children:
            reward = self.descend(self.pick(node))
        else:
            reward = self.evaluate(node)
        self.record(node, reward)
        return reward

    def leaf(self, node: Node) -> Any:
        reward = self.evaluate(node)
        self.record(node, reward)
        return reward

    def may_grow(self, node: Node) -> bool:
        room = len(self.nodes) + self.num_children <= self.capacity
        return node.visits > 0 and not node.is_terminal and node.depth < self.max_depth and room

    def grow(self, node: Node) -> None:
        self.requests.append(("expand", node.path))
        for position, (is_terminal, prior) in enumerate(self.actor.expand(node)):
            child = Node(
                index=len(self.nodes),
                parent=node,
                path=(*node.path, position),
                is_terminal=is_terminal,
                prior=prior,
                total=self.number(0),
            )
            node.children.append(child)
            self.nodes.append(child)

    def evaluate(self, node: Node) -> Any:
        if node.own_reward is not None:
            return node.own_reward
        self.requests.append(("score" if node.is_terminal else "rollout", node.path))
        reward = self.actor.reward(node)
        reward = None if reward is None else self.number(reward)
        if node.is_terminal:
            node.own_reward = self.stand_in(node) if reward is None else reward
        return reward

    def stand_in(self, node: Node) -> Any:
        """The substitute for a missing reward, which leaves the mean of a node unchanged."""
        if node.visits:
            return self.mean(node)
        return self.number(0) if node.parent is None else self.mean(node.parent)

    def record(self, node: Node, reward: Any) -> None:
        """Children are updated before their parents, whose means are thus still the old ones."""
        added = self.stand_in(node) if reward is None else reward
        node.total = self.number(node.total + added)
        node.visits += 1

    def mean(self, node: Node) -> Any:
        return self.number(node.total / self.number(node.visits)) if node.visits else self.number(0)

    def pick(self, node: Node) -> Node:
        scores = [float(self.value(child)) for child in node.children]
        best = max(scores)
        lower = [score for score in scores if score < best]
        if lower:
            self.margin = min(self.margin, best - max(lower))
        return node.children[scores.index(best)]

    def value(self, child: Node) -> float:
        """`pending` is 0 everywhere if iterations are sequential."""
        weight = self.c if self.score == "ucb1" else self.c * child.prior
        visits = child.visits + child.pending
        above = child.parent.visits + child.parent.pending
        if visits == 0:
            return 100 * weight
        if self.score == "ucb1":
            bonus = math.sqrt(math.log(above) / visits)
        else:
            bonus = math.sqrt(above) / (1 + visits)
        return self.mean(child) + weight * bonus


@dataclass
class Lanes(Search):
    """Several iterations in flight (WU-UCT): `fill` starts them, `deliver` ends or continues one.

    A request is (what, path), as in `requests`; a lane holds the node of its request, or None.
    """

    lanes: int = 1

    def __post_init__(self):
        super().__post_init__()
        self.at: list[Node | None] = [None] * self.lanes
        self.asked = [""] * self.lanes
        self.launched = self.finished = 0

    def fill(self) -> list[tuple[int, str, tuple[int, ...]]]:
        """Starts iterations in the free lanes; returns their requests (lane, what, path)."""
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

    def deliver(self, lane: int) -> list[tuple[int, str, tuple[int, ...]]]:
        """Delivers the result of a lane's request; returns the next request of the lane, if any."""
        node, what = self.at[lane], self.asked[lane]
        self.at[lane] = None
        if what != "expand":
            reward = self.actor.reward(node)
            reward = None if reward is None else self.number(reward)
            if what == "score":
                node.own_reward = self.stand_in(node) if reward is None else reward
            self.pend(node, -1)
            self.end(node, reward)
            return []
        self.grow(node)
        child = self.pick(node) if node.children else node
        child.pending += child is not node
        return [self.ask(lane, child, "score" if child.is_terminal else "rollout")]

    def ask(self, lane, node, what):
        self.at[lane], self.asked[lane] = node, what
        return lane, what, node.path

    def grows(self, node: Node) -> bool:
        return any(n is node and a == "expand" for n, a in zip(self.at, self.asked, strict=True))

    def may_grow(self, node: Node) -> bool:
        others = sum(
            n is not None and a == "expand" for n, a in zip(self.at, self.asked, strict=True)
        )
        room = len(self.nodes) + (1 + others) * self.num_children <= self.capacity
        return room and super().may_grow(node)

    def pend(self, node: Node | None, number: int) -> None:
        while node is not None:
            node.pending += number
            node = node.parent

    def end(self, node: Node | None, reward: Any) -> None:
        self.finished += 1
        while node is not None:
            self.record(node, reward)
            node = node.parent


class Script:
    """An actor whose results depend on its seed, the node's path and the number of visits."""

    def __init__(self, seed, num_children, *, terminal=0.2, missing=0.0, failing=0.1, scale=1.0):
        self.seed, self.num_children, self.scale = seed, num_children, scale
        self.terminal, self.missing, self.failing = terminal, missing, failing
        self.asked = Counter()

    def draw(self, kind, path):
        self.asked[kind, path] += 1
        return random.Random(f"{self.seed} {kind} {path} {self.asked[kind, path]}")

    def children(self, path):
        draw = self.draw("expand", path)
        if draw.random() < self.failing:
            return []
        count = draw.randint(1, self.num_children)  # fewer, as if duplicates had been dropped
        return [(draw.random() < self.terminal, draw.randint(1, 8) / 8) for _ in range(count)]

    def score(self, path):
        draw = self.draw("reward", path)
        if draw.random() < self.missing:
            return None
        return self.scale * (draw.randint(-12, 12) / 4 if draw.random() < 0.5 else draw.gauss(0, 1))

    def expand(self, node):
        return self.children(node.path)

    def reward(self, node):
        return self.score(node.path)
