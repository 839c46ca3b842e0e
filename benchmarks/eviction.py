"""What a cache that knew better would not prefill again: eviction in search trees, simulated.

    python -m benchmarks.eviction [--trees 56] [--a-tree 3500] [--rewards sign]

Trees are searched side by side, an iteration of each in turn, in plain Python and without a model:
steps, answers and rewards as in `benchmarks.script`, `--a-tree` tokens of cache for each tree, in
which it keeps its steps (what is being sampled, or judged, is beside them). What a request
continues has to be there, else it is prefilled; leaves are evicted first, as in the engine. What a
tree is at is never evicted. A line `eviction` a policy, all over the same trees:

    none       nothing is ever evicted: the least
    oracle     evicts the leaf that is used last, by the future of all trees: the bound
    lru        evicts the leaf that was used longest ago, as the engine does
    path       the same, but what the next walk of its tree would pass goes last
    gap        evicts the leaf that is furthest from being chosen: by the gaps, summed along its
               path, between its UCB1 score and that of the best sibling
    rate       evicts the leaf with the smallest share of its tree's visits

`prefilled` are tokens a tree, with those of its judgements, `again` those that had been in the
cache before, `sampled` those that were sampled; `share` is what `again` takes of the time of a
tree, and `saved` what the policy saves of that of `lru`, at the rates of --prefill-rate and
--decode-rate.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import Lines
from benchmarks.script import Lengths, Spread
from stair_jax.testing.reference_search import Path, ReferenceNode, ReferenceSearch

_PROMPT = 120
_JUDGED = 50  # tokens of a judge's prompt behind what is cached of it
_LENGTHS = Lengths()
_FAR = 10.0  # caps a gap to a sibling that was never visited

Place = tuple[int, Path]  # a node: its tree, and its path there
Rank = Callable[["Simulation", Place], Any]  # the lowest leaf is evicted


def _draw(spread: Spread, rng: random.Random) -> int:
    drawn = round(rng.gauss(spread.mean, spread.deviation))
    return int(min(max(drawn, spread.low), 2 * spread.mean))


class Actor:
    """Steps and rewards of one tree; what it writes is counted."""

    def __init__(self, tree: int, num_children: int, scale: float):
        """An actor that was not asked yet; rewards are -scale or scale."""
        self._tree, self._num_children, self._scale = tree, num_children, scale
        self._asked = 0
        self.sampled = self.judged = 0

    def expand(self, node: ReferenceNode) -> list[tuple[bool, float]]:
        """(is terminal, prior) of each step after a node."""
        steps = [(*node.path, position) for position in range(self._num_children)]
        self.sampled += sum(map(self.tokens, steps))
        ends = _LENGTHS.ends[node.depth]
        return [(random.Random(f"{self._tree} end {path}").random() < ends, 1.0) for path in steps]

    def reward(self, node: ReferenceNode) -> float:
        """Of an answer, which is written to its end if the node does not end it."""
        self._asked += 1
        rng = random.Random(f"{self._tree} reward {self._asked}")
        depth, is_over = node.depth, node.is_terminal
        while not is_over:
            self.sampled += _draw(_LENGTHS.step, rng)
            is_over = depth >= len(_LENGTHS.ends) or rng.random() < _LENGTHS.ends[depth]
            depth += 1
        self.sampled += _draw(_LENGTHS.reply, rng)
        self.judged += 1
        return self._scale * rng.choice((-1, 1))

    def tokens(self, path: Path) -> int:
        """Tokens of a step."""
        return _draw(_LENGTHS.step, random.Random(f"{self._tree} step {path}")) if path else _PROMPT


@dataclass
class Simulation:
    """Trees side by side over one cache.

    Attributes:
        searches: one a tree.
        capacity: tokens of the cache.
        rank: chooses what is evicted.
        uses: by node, the times at which it was used, or one below it; all in order.
        now: number of uses so far.
        prefilled, again: tokens; the first without those of judgements.
    """

    searches: list[ReferenceSearch]
    capacity: float
    rank: Rank
    uses: dict[Place, list[int]] = field(default_factory=dict)
    now: int = 0
    prefilled: int = 0
    again: int = 0
    _cached: dict[Place, int] = field(default_factory=dict)
    _below: dict[Place, int] = field(default_factory=dict)  # cached children
    _leaves: set[Place] = field(default_factory=set)
    _at: dict[int, Path] = field(default_factory=dict)
    _total: int = 0

    def run(self) -> "Simulation":
        """All iterations, and the visits after the budget."""
        running = dict(enumerate(self.searches))
        left = {tree: self.searches[tree].num_iterations for tree in running}
        while running:
            for tree, search in list(running.items()):
                before = len(search.requests)
                while left[tree] and len(search.requests) == before:  # others cost nothing
                    search.descend(search.root)
                    left[tree] -= 1
                if not left[tree]:
                    search.finish()
                    del running[tree]
                for what, path in search.requests[before:]:
                    self._serve(tree, what, path)
                if not left[tree]:
                    self._drop_tree(tree)
        return self

    @property
    def totals(self) -> tuple[int, int, int]:
        """(`sampled`, `prefilled`, `again`) of all trees, see the top of this file."""
        actors = [self._actor(tree) for tree in range(len(self.searches))]
        judged = sum(actor.judged for actor in actors)
        return sum(a.sampled for a in actors), self.prefilled + _JUDGED * judged, self.again

    def node(self, place: Place) -> ReferenceNode:
        """The node of a place."""
        node = self.searches[place[0]].root
        for position in place[1]:
            node = node.children[position]
        return node

    def _actor(self, tree: int) -> Actor:
        actor = self.searches[tree].actor
        assert isinstance(actor, Actor)
        return actor

    def _serve(self, tree: int, what: str, path: Path) -> None:
        if what == "score":  # of a finished answer: continues nothing
            return
        self.now += 1
        lineage = [(tree, path[:depth]) for depth in range(len(path) + 1)]
        self._at[tree] = path
        for place in lineage:
            seen = self.uses.setdefault(place, [])
            if place not in self._cached:
                tokens = self._insert(place)
                self.prefilled += tokens
                self.again += tokens if seen or len(place[1]) else 0
            seen.append(self.now)
        if what == "expand":
            for child in self.node((tree, path)).children:
                if not child.is_terminal:
                    self._insert((tree, child.path))

    def _insert(self, place: Place) -> int:
        tree, path = place
        tokens = self._actor(tree).tokens(path)
        self._cached[place] = tokens
        self._total += tokens
        self._leaves.add(place)
        if path:
            above = tree, path[:-1]
            self._below[above] = self._below.get(above, 0) + 1
            self._leaves.discard(above)
        while self._total > self.capacity:
            loose = [leaf for leaf in self._leaves if not self._is_needed(leaf, place)]
            if not loose:
                break
            self._evict(min(loose, key=lambda leaf: self.rank(self, leaf)))
        return tokens

    def _is_needed(self, leaf: Place, inserted: Place) -> bool:
        at = self._at.get(leaf[0], ())
        return leaf == inserted or at[: len(leaf[1])] == leaf[1]

    def _evict(self, place: Place) -> None:
        tree, path = place
        self._total -= self._cached.pop(place)
        self._leaves.remove(place)
        if path:
            above = tree, path[:-1]
            self._below[above] -= 1
            if not self._below[above] and above in self._cached:
                self._leaves.add(above)

    def _drop_tree(self, tree: int) -> None:
        for place in [place for place in self._cached if place[0] == tree]:
            self._total -= self._cached.pop(place)
            self._leaves.discard(place)
        self._at.pop(tree, None)


def least_recent(simulation: Simulation, place: Place) -> int:
    """What was used longest ago goes first; a step that never was, as its parent."""
    used = simulation.uses.get(place)
    return used[-1] if used else simulation.uses[place[0], place[1][:-1]][-1]


def _walk(simulation: Simulation, tree: int) -> Path:
    """The leaf that the next walk of a tree would reach, by what it knows now."""
    search = simulation.searches[tree]
    node = search.root
    while node.children:
        node = max(node.children, key=lambda child: search.value(node, child))
    return node.path


def by_path(simulation: Simulation, place: Place) -> tuple[bool, int]:
    """What the next walk would pass goes last; else the least recently used first."""
    tree, path = place
    return _walk(simulation, tree)[: len(path)] == path, least_recent(simulation, place)


def by_gap(simulation: Simulation, place: Place) -> tuple[float, int]:
    """The furthest from being chosen goes first; of equals the least recently used."""
    search, node, total = simulation.searches[place[0]], simulation.node(place), 0.0
    while node.parent is not None:
        scores = [search.value(node.parent, child) for child in node.parent.children]
        total += min(max(scores) - search.value(node.parent, node), _FAR)
        node = node.parent
    return -total, least_recent(simulation, place)


def by_rate(simulation: Simulation, place: Place) -> tuple[float, int]:
    """What is visited least often goes first; of a node without visits it is its share of those
    of its parent.
    """
    node = simulation.node(place)
    rate = float(node.visits)
    if not node.visits and node.parent is not None:
        rate = node.parent.visits / sum(not child.visits for child in node.parent.children)
    root = simulation.searches[place[0]].root
    return rate / max(root.visits, 1), least_recent(simulation, place)


def by_future(uses: dict[Place, list[int]]) -> Rank:
    """What is used last, or never, goes first.

    Args:
        uses: of a simulation of the same trees.
    """
    left: dict[Place, Iterator[int]] = {place: iter(times) for place, times in uses.items()}
    following: dict[Place, float] = {}

    def rank(simulation: Simulation, place: Place) -> float:
        times = left.get(place, iter(()))
        while following.get(place, 0) <= simulation.now:
            following[place] = next(times, float("inf"))
        return -following[place]

    return rank


def simulate(
    trees: int, num_iterations: int, num_children: int, scale: float, rank: Rank, capacity: float
) -> Simulation:
    """Trees that are searched side by side.

    Args:
        trees: how many.
        num_iterations: of each.
        num_children: of each expansion.
        scale: of the rewards.
        rank: chooses what is evicted.
        capacity: tokens of the cache.
    """
    actors = [Actor(tree, num_children, scale) for tree in range(trees)]
    searches = [ReferenceSearch(actor, num_iterations, num_children) for actor in actors]
    return Simulation(searches, capacity, rank).run()


def main() -> None:
    """Prints a line a policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", type=int, default=56)
    parser.add_argument("--num-iterations", type=int, default=200)
    parser.add_argument("--num-children", type=int, default=4)
    parser.add_argument("--a-tree", type=int, default=3500, help="tokens of cache for a tree")
    parser.add_argument("--rewards", default="sign", choices=("sign", "paper"))
    parser.add_argument("--decode-rate", type=float, default=19_400, help="tokens/s")
    parser.add_argument("--prefill-rate", type=float, default=44_500, help="tokens/s")
    flags = parser.parse_args()
    lines = Lines(vars(flags))
    scale = 1.0 if flags.rewards == "sign" else 3.0
    base = 0.0  # seconds a tree by `lru`

    def measure(policy: str, rank: Rank, capacity: float) -> Simulation:
        nonlocal base
        done = simulate(
            flags.trees, flags.num_iterations, flags.num_children, scale, rank, capacity
        )
        sampled, prefilled, again = (each / flags.trees for each in done.totals)
        seconds = sampled / flags.decode_rate + prefilled / flags.prefill_rate
        base = base or seconds
        lines(
            "eviction",
            policy=policy,
            sampled=sampled,
            prefilled=prefilled,
            again=again,
            share=again / flags.prefill_rate / seconds,
            saved=(base - seconds) / base,
        )
        return done

    capacity = float(flags.a_tree * flags.trees)
    uses = measure("lru", least_recent, capacity).uses
    measure("path", by_path, capacity)
    measure("gap", by_gap, capacity)
    measure("rate", by_rate, capacity)
    measure("oracle", by_future(uses), capacity)
    measure("none", least_recent, float("inf"))


if __name__ == "__main__":
    main()
