"""What the tree kernel works on: settings, the trees, and what passes between kernel and host."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import flax.struct
import numpy as np
from jax import Array

from stair_jax.search.selection_scores import SCORES
from stair_jax.settings import Settings, setting

HostArray: TypeAlias = Any  # filled in by the host as numpy, traced inside a jit

ROOT = 0
NO_NODE = -1
MAX_IN_FLIGHT = 4  # with 8 a tree loses pairs, as its walks know too little of each other


class Need(enum.IntEnum):
    """What a tree asks of the host."""

    WAIT = 0
    EXPAND = 1
    ROLLOUT = 2
    SCORE = 3
    DONE = 4


@dataclass(frozen=True)
class SearchConfig(Settings):
    """Static settings of SI-MCTS (Algorithm 1 of the paper), with its values as defaults.

    Attributes:
        num_iterations: budget of a tree.
        num_children: most children of a node.
        max_depth: nodes at this depth are never expanded; the root has depth 0.
        c: weight of exploration.
        score: "ucb1" or "puct".
        tie_break: "random", from the tree's own key, or "first", the lowest child index.
        capacity: most nodes of a tree, N; a leaf that would go beyond it is rolled out instead of
            being expanded. None: as many as the budget can make.
        in_flight: iterations of a tree under way at once, W. With more than one, those under way
            count as visits when children are compared (WU-UCT, Liu et al., "Watch the unobserved",
            ICLR 2020).
        root_children: most children of the root, for more first steps; 0: as of any node.
    """

    num_iterations: int = setting(200, least=1, most=2**20)
    num_children: int = setting(4, least=1, most=256)
    max_depth: int = setting(7, least=1, most=2**15)
    c: float = setting(1.5, least=0)
    score: str = setting("ucb1", choices=tuple(SCORES))
    tie_break: str = setting("random", choices=("random", "first"))
    capacity: int | None = setting(None, least=1, most=2**24)
    in_flight: int = setting(1, least=1, most=MAX_IN_FLIGHT)
    root_children: int = setting(0, least=0, most=256, absent=0)

    @property
    def width(self) -> int:
        """M: the most children of any node."""
        return max(self.num_children, self.root_children)

    @property
    def num_nodes(self) -> int:
        """N: the capacity, or all that the budget can make (the first iteration makes none)."""
        # The root may make M - num_children more, and each of the last W has to find room for M.
        more = (1 + self.in_flight) * (self.width - self.num_children)
        return self.capacity or 1 + (self.num_iterations - 1) * self.num_children + more


class Trees(flax.struct.PyTreeNode):
    """B trees of at most N nodes with at most M children each; unbatched, without the B axis.

    Nodes are numbered in the order in which they were made, siblings in a row, the root first. A
    lane, one of W, holds one iteration under way.
    """

    parent: Array  # [B, N] i32, NO_NODE for the root and for slots not in use
    children: Array  # [B, N, M] i32, NO_NODE where there is none
    depth: Array  # [B, N] i32, 0 for the root
    visits: Array  # [B, N] i32, evaluations that passed through the node or ended on it
    pending: Array  # [B, N] i32, iterations under way through the node; not counted where W is 1
    value_sum: Array  # [B, N] f32, sum of the rewards backed up through the node
    reward: Array  # [B, N] f32, of a terminal node; nan until scored and for all others
    is_terminal: Array  # [B, N] bool, the step ends the answer
    prior: Array  # [B, N] f32, mean token probability of the step (read by "puct" alone)
    choice: Array  # [B, N] i32, the child that the next walk through the node takes, or NO_NODE
    num_nodes: Array  # [B] i32
    iterations: Array  # [B] i32, iterations done, without the visits after the budget
    leaf: Array  # [B, W] i32, the node whose request is in flight, NO_NODE when the lane is free
    expanding: Array  # [B, W] bool, that request is an expansion
    turn: Array  # [B] i32, how often ties were drawn
    key: Array  # [B] typed random keys, for ties


class Selection(flax.struct.PyTreeNode):
    """What each lane of each tree asks for."""

    node: Array  # [B, W] i32, NO_NODE with WAIT and DONE
    need: Array  # [B, W] i32, a `Need`; DONE in all lanes of a tree


class Expansion(flax.struct.PyTreeNode):
    """Distinct steps sampled after a leaf; entries from `num_children` on are not read."""

    num_children: HostArray  # [B] i32, 0..M; 0: all samples failed
    is_terminal: HostArray  # [B, M] bool
    prior: HostArray  # [B, M] f32


class Delivery(flax.struct.PyTreeNode):
    """What the host delivers in a round; a tree gets an expansion, a reward, or nothing.

    It is for one lane of the tree: were two lanes served in one round, the walk that starts in the
    first would know of the second, and a tree would depend on how rounds fall.
    """

    lane: HostArray  # [B] i32
    expanded: HostArray  # [B] bool
    expansion: Expansion
    rewarded: HostArray  # [B] bool
    reward: HostArray  # [B] f32; nan: the score could not be read

    @staticmethod
    def empty(config: SearchConfig, batch: int) -> "Delivery":
        """A delivery of nothing, as numpy arrays for the host to fill in."""
        shape = (batch, config.width)
        return Delivery(
            lane=np.zeros(batch, np.int32),
            expanded=np.zeros(batch, bool),
            expansion=Expansion(
                num_children=np.zeros(batch, np.int32),
                is_terminal=np.zeros(shape, bool),
                prior=np.zeros(shape, np.float32),
            ),
            rewarded=np.zeros(batch, bool),
            reward=np.zeros(batch, np.float32),
        )


class TracedActor(NamedTuple):
    """A traced stand-in for model and judge, without batch axes; `state` is the tree's own."""

    expand: Callable[[Any, Trees, Array], Expansion]  # (state, tree, node)
    evaluate: Callable[[Any, Trees, Array], Array]  # (state, tree, node) -> reward, nan if missing
