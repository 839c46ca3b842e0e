"""The steps of SI-MCTS in one tree (STAIR section 3): select, expand, backup; pure functions.

None has a batch axis; `jax.vmap` lifts them to many trees. A step of an answer is a node index.

The choice among the children of a node depends on the statistics of the node and of its children,
which change only when an iteration passes through the node. So `backup` renews the choices along
its path, all levels in parallel, and `select` only follows them.

With several iterations under way (`SearchConfig.in_flight`) WU-UCT's rule holds: where children are
compared, an iteration under way counts as a visit of each node that it passed, and no mean knows of
it. `launch` enters it, `land` takes it out again before its reward is backed up.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from stair_jax.search.scores import SCORES
from stair_jax.search.tree_data import NO_NODE, ROOT, Expansion, Need, SearchConfig, Trees


def select(config: SearchConfig, tree: Trees) -> tuple[Array, Array]:
    """Walks from the root to a leaf along the choices: (node, Need), both scalars.

    A terminal leaf needs SCORE, whether or not its reward is known already. A leaf whose expansion
    is under way needs a further ROLLOUT.
    """

    def down(_, node):
        following = get(tree.choice, node)
        return jnp.where(following == NO_NODE, node, following)

    node = lax.fori_loop(0, config.max_depth, down, jnp.int32(ROOT), unroll=_unroll(config))
    expandable = (
        (get(tree.visits, node) > 0)
        & (get(tree.depth, node) < config.max_depth)
        & (tree.num_nodes + config.num_children <= config.num_nodes)
    )
    if config.in_flight > 1:
        expandable &= ~(tree.expanding & (tree.leaf == node)).any()
        # The expansions under way need room as well.
        made = (1 + tree.expanding.sum()) * config.num_children
        expandable &= tree.num_nodes + made <= config.num_nodes
    need = jnp.where(expandable, Need.EXPAND, Need.ROLLOUT)
    return node, jnp.where(get(tree.is_terminal, node), Need.SCORE, need)


def expand(
    config: SearchConfig,
    tree: Trees,
    node: Array,
    expansion: Expansion,
    active: Array | bool = True,
) -> tuple[Trees, Array]:
    """Adds children to the leaf `node`: (tree, the one of them to evaluate now).

    With no children in the expansion the tree stays as it is and the node to evaluate is the leaf
    itself. `active` is a scalar mask: where it is false nothing changes.
    """
    offsets = jnp.arange(config.num_children)
    active &= tree.num_nodes + expansion.num_children <= config.num_nodes
    exists = active & (offsets < expansion.num_children)
    grown = active & (expansion.num_children > 0)
    slots = tree.num_nodes + offsets
    made = jnp.where(exists, slots, config.num_nodes)
    parent = jnp.where(grown, node, config.num_nodes)
    words = _tie_words(config, tree)
    # The new children have no visits yet and one parent: their scores need no gathers.
    scores = SCORES[config.score](
        jnp.zeros(offsets.shape),
        jnp.zeros_like(slots),
        expansion.prior,
        jnp.maximum(get(tree.visits, node), 1),
        config.c,
    )
    chosen = slots[0] + _best(config, jnp.where(exists, scores, -jnp.inf), words[-1])
    tree = tree.replace(
        parent=_set(tree.parent, made, node),
        children=_set(tree.children, parent, jnp.where(exists, slots, NO_NODE)),
        depth=_set(tree.depth, made, get(tree.depth, node) + 1),
        is_terminal=_set(tree.is_terminal, made, expansion.is_terminal),
        prior=_set(tree.prior, made, expansion.prior),
        choice=_set(tree.choice, parent, chosen),
        num_nodes=tree.num_nodes + jnp.where(grown, expansion.num_children, 0),
    )
    if config.in_flight > 1:
        tree = tree.replace(
            pending=_add(tree.pending, jnp.where(grown, chosen, config.num_nodes), 1)
        )
        tree = _renew(config, tree, parent[None], words[:1])
        tree = tree.replace(turn=tree.turn + active)
    return tree, jnp.where(grown, chosen, node)


def launch(config: SearchConfig, tree: Trees, node: Array, active: Array | bool = True) -> Trees:
    """Counts an iteration that goes to the leaf `node`; only where several may be under way."""
    words = _tie_words(config, tree)[:-1]
    tree, path = _add_pending(config, tree, node, active, 1)
    tree = _renew(config, tree, path[1:], words)
    return tree.replace(turn=tree.turn + active)


def land(config: SearchConfig, tree: Trees, node: Array, active: Array | bool = True) -> Trees:
    """Takes back what `launch` counted (and `expand`, for the child); `backup` has to follow."""
    return _add_pending(config, tree, node, active, -1)[0]


def _add_pending(
    config: SearchConfig, tree: Trees, node: Array, active: Array | bool, number: int
) -> tuple[Trees, Array]:
    """(tree, path [max_depth + 1] from the node up, N beyond it and where not active)."""
    path = _path_to_root(config, tree, node)
    path = jnp.where((path != NO_NODE) & active, path, config.num_nodes)
    return tree.replace(pending=_add(tree.pending, path, number)), path


def backup(
    config: SearchConfig, tree: Trees, node: Array, reward: Array, active: Array | bool = True
) -> Trees:
    """Adds the reward of the leaf `node` to all nodes from it up to the root; renews their choices.

    A missing reward (nan) moves no mean: the visits rise by one and each sum by the node's own mean
    (that of its parent where it has no visits, 0 at the root). The first reward of a terminal node
    is kept as its own, be it real or the stand-in. Where the scalar `active` is false nothing
    changes.
    """
    words = _tie_words(config, tree)
    tree, path = add_reward(config, tree, node, reward, active)
    if config.in_flight == 1:  # the evaluated node is a leaf: only those above it have a choice
        path, words = path[1:], words[:-1]
    tree = _renew(config, tree, path, words)
    return tree.replace(turn=tree.turn + active)


def add_reward(
    config: SearchConfig, tree: Trees, node: Array, reward: Array, active: Array | bool
) -> tuple[Trees, Array]:
    """`backup` without the choices: (tree, path [max_depth + 1] from the node up, N beyond it)."""
    path = _path_to_root(config, tree, node)
    valid = path != NO_NODE
    visits = get(tree.visits, path)
    value_sum = get(tree.value_sum, path)
    mean = jnp.where(valid & (visits > 0), value_sum / jnp.maximum(visits, 1), 0.0)
    stand_in = jnp.where(visits > 0, mean, jnp.append(mean[1:], 0.0))
    added = jnp.where(jnp.isnan(reward), stand_in, reward)
    scored = active & get(tree.is_terminal, node) & jnp.isnan(get(tree.reward, node))
    # `added` is never nan; that the writes depend on it puts them after every read of the old
    # statistics, by an actor too, so that XLA updates the arrays in place and copies nothing.
    path = jnp.where(valid & active & ~jnp.isnan(added), path, config.num_nodes)
    tree = tree.replace(
        visits=_set(tree.visits, path, visits + 1),
        value_sum=_set(tree.value_sum, path, value_sum + added),
        reward=_set(tree.reward, jnp.where(scored, node, config.num_nodes), added[0]),
    )
    return tree, path


def actions_to(config: SearchConfig, tree: Trees, node: Array) -> Array:
    """Which child is taken at each depth on the way from the root to `node`.

    What an actor of one's own needs to know of a node, where its state follows from the actions.

    Args:
        config: static settings.
        tree: one tree, without the batch axis.
        node: scalar.

    Returns:
        `[max_depth]` i32, numbers of children from 0 on, NO_NODE beyond the depth of the node.
    """
    path = _path_to_root(config, tree, node)[:-1]
    parent = get(tree.parent, path)
    is_step = (path != NO_NODE) & (parent != NO_NODE)
    actions = path - get(tree.children, parent)[:, 0]  # siblings are numbered in a row
    depths = jnp.where(is_step, get(tree.depth, path) - 1, config.max_depth)
    return _set(jnp.full(config.max_depth, NO_NODE, jnp.int32), depths, actions)


def next_unvisited(tree: Trees) -> Array:
    """The lowest node that was never visited, or NO_NODE: scalar i32."""
    waiting = unvisited(tree)
    return jnp.where(waiting.any(), jnp.argmax(waiting), NO_NODE).astype(jnp.int32)


def unvisited(trees: Trees) -> Array:
    """Mask [B, N] (or [N] of one tree) of the nodes that exist and were never visited."""
    nodes = jnp.arange(trees.visits.shape[-1])
    return (trees.visits == 0) & (nodes < trees.num_nodes[..., None])


def _path_to_root(config: SearchConfig, tree: Trees, node: Array) -> Array:
    """[max_depth + 1] i32: the node, its parent, ... the root, then NO_NODE."""

    def up(node, _):
        return jnp.where(node == NO_NODE, NO_NODE, get(tree.parent, node)), node

    return lax.scan(up, node, None, config.max_depth + 1, unroll=_unroll(config))[1]


def _renew(config: SearchConfig, tree: Trees, path: Array, words: Array) -> Trees:
    """Chooses anew at the nodes of `path`; those without children have nothing to choose."""
    chosen = jax.vmap(functools.partial(_choose, config, tree))(path, words)
    if config.in_flight > 1:
        inner = get(tree.children, path)[:, 0] != NO_NODE
        path = jnp.where(inner, path, config.num_nodes)
    return tree.replace(choice=_set(tree.choice, path, chosen))


def _choose(config: SearchConfig, tree: Trees, node: Array, word: Array) -> Array:
    """The child of `node` with the highest score: scalar i32."""
    children = get(tree.children, node)
    visits = get(tree.visits, children)
    mean = get(tree.value_sum, children) / jnp.maximum(visits, 1)
    parent_visits = get(tree.visits, node)
    if config.in_flight > 1:
        visits += get(tree.pending, children)
        parent_visits += get(tree.pending, node)
    parent_visits = parent_visits.astype(jnp.float32)
    prior = get(tree.prior, children)
    scores = SCORES[config.score](mean, visits, prior, parent_visits, config.c)
    # Siblings are numbered in a row.
    return children[0] + _best(config, jnp.where(children == NO_NODE, -jnp.inf, scores), word)


def _best(config: SearchConfig, scores: Array, word: Array) -> Array:
    """Index of the highest of the scores [M]; among equals the first, or one drawn by `word`."""
    if config.tie_break == "first":
        return jnp.argmax(scores).astype(jnp.int32)
    tied = scores == scores.max()
    rank = jnp.cumsum(tied)
    drawn = ((word >> 8) * rank[-1].astype(jnp.uint32)) >> 24
    return jnp.argmax(rank > drawn).astype(jnp.int32)


def _tie_words(config: SearchConfig, tree: Trees) -> Array:
    """Random words [max_depth + 1] u32 of this turn: one a level, the last for `expand`.

    Hashes of (key, turn, level): threefry would take as long as the rest of an iteration.
    """
    levels = jnp.arange(config.max_depth + 1)
    if config.tie_break == "first":
        return levels.astype(jnp.uint32)
    counter = tree.turn * (config.max_depth + 1) + levels
    low, high = jax.random.key_data(tree.key)
    return _hash(_hash(low ^ counter.astype(jnp.uint32)) + high)


def _hash(word: Array) -> Array:
    """A bijection of u32 in which each input bit changes each output bit about half the time."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def _unroll(config: SearchConfig) -> int:
    """Levels unrolled in a walk: a GPU pays for the number of kernels."""
    return min(config.max_depth + 1, 16)


def get(array: Array, index: Array) -> Array:
    """array[index]; a NO_NODE index reads some value that the caller masks."""
    return array.at[jnp.maximum(index, 0)].get(
        mode="promise_in_bounds", wrap_negative_indices=False
    )


def _set(array: Array, index: Array, value: Array) -> Array:
    """Array with array[index] = value; an index of N is dropped."""
    return array.at[index].set(value, mode="drop", wrap_negative_indices=False)


def _add(array: Array, index: Array, number: int) -> Array:
    """Array with `number` added at the distinct indices; an index of N is dropped."""
    return array.at[index].add(number, mode="drop", wrap_negative_indices=False)
