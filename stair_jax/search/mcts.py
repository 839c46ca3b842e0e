"""SI-MCTS (Algorithm 1 of the STAIR paper) on one tree: selection, expansion, backup.

Pure functions without a batch axis; `kernel.py` applies them to many trees with `jax.vmap`. A node
is one reasoning step of an answer (or its output block) and is referred to by its index; texts and
tokens stay on the host. Selection is by UCB1 or PUCT (`selection_scores.py`). A leaf is evaluated
on its first visit and expanded on its second.

Selection reads a cached best child per node (`Trees.choice`) instead of scoring the children at
each level. The best child depends only on the statistics of the node and of its children, and these
change only when an iteration passes through the node. So `backup` recomputes the choices on its
path, all levels in parallel, and `select` just follows pointers.

With several iterations in flight per tree (`SearchConfig.in_flight` > 1) the WU-UCT rule applies
(Liu et al., "Watch the Unobserved", ICLR 2020): an unfinished iteration counts as a visit of every
node on its path when children are compared, but does not enter their mean values.
`add_virtual_visit` adds these pending visits, `remove_virtual_visit` removes them before the reward
is backed up.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from stair_jax.search.selection_scores import SCORES
from stair_jax.search.tree import NO_NODE, ROOT, Expansion, Need, SearchConfig, Trees


def select(config: SearchConfig, tree: Trees) -> tuple[Array, Array]:
    """Selection: walks from the root to a leaf along the cached choices.

    Returns:
        (leaf node, `Need`), both int32 scalars. A terminal leaf gives SCORE, whether or not its
        reward is already known. A leaf that another lane is already expanding gives ROLLOUT, so
        that it is not expanded twice.
    """

    def down(_, node):
        following = get(tree.choice, node)
        return jnp.where(following == NO_NODE, node, following)

    # A fixed number of levels, not a while loop: the step stays put once it is at a leaf, and under
    # vmap a while loop would take as many steps as the deepest tree needs anyway.
    node = lax.fori_loop(0, config.max_depth, down, jnp.int32(ROOT), unroll=_unroll(config))
    # Second visit or later, above the maximum depth, and the arrays have room for its children.
    expandable = (
        (get(tree.visits, node) > 0)
        & (get(tree.depth, node) < config.max_depth)
        & (tree.num_nodes + config.width <= config.num_nodes)
    )
    if config.in_flight > 1:
        expandable &= ~(tree.expanding & (tree.leaf == node)).any()
        # Reserve room for the expansions in flight: their number of children is not known yet.
        made = (1 + tree.expanding.sum()) * config.width
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
    """Expansion: adds the sampled steps as children of the leaf `node`.

    Args:
        config: static settings.
        tree: one tree, without the batch axis.
        node: int32 scalar, the leaf.
        expansion: up to M children; those from `expansion.num_children` on are ignored.
        active: bool scalar; if false, nothing changes. vmapped code masks instead of branching.

    Returns:
        (tree, the node to evaluate next): the selected child, or `node` itself if the expansion
        has no children.
    """
    offsets = jnp.arange(config.width)
    active &= tree.num_nodes + expansion.num_children <= config.num_nodes
    exists = active & (offsets < expansion.num_children)
    grown = active & (expansion.num_children > 0)
    slots = tree.num_nodes + offsets
    # Index N is out of bounds, and `_set` drops such writes: this masks without a select per array.
    made = jnp.where(exists, slots, config.num_nodes)
    parent = jnp.where(grown, node, config.num_nodes)
    words = _tie_words(config, tree)
    # The new children have no visits and one common parent: their scores need no gathers.
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


def add_virtual_visit(
    config: SearchConfig, tree: Trees, node: Array, active: Array | bool = True
) -> Trees:
    """Adds a pending visit to the path of an iteration that starts at the leaf `node`.

    Called only if `config.in_flight` > 1. `active` is a bool scalar mask, as in `expand`.
    """
    # The last word of a turn is reserved for `expand`; the leaf at path[0] has no choice to renew.
    words = _tie_words(config, tree)[:-1]
    tree, path = _add_pending(config, tree, node, active, 1)
    tree = _renew(config, tree, path[1:], words)
    return tree.replace(turn=tree.turn + active)


def remove_virtual_visit(
    config: SearchConfig, tree: Trees, node: Array, active: Array | bool = True
) -> Trees:
    """Removes the pending visits of `add_virtual_visit` (and, for the child, of `expand`) from a
    path.

    `backup` of the same node must follow: it recomputes the choices on the path.
    """
    return _add_pending(config, tree, node, active, -1)[0]


def _add_pending(
    config: SearchConfig, tree: Trees, node: Array, active: Array | bool, number: int
) -> tuple[Trees, Array]:
    """Adds `number` to the pending visits from `node` up to the root.

    Returns:
        (tree, path): path is [max_depth + 1] i32, from the node to the root, N (dropped by `_set`)
        beyond the root and everywhere if not active.
    """
    path = _path_to_root(config, tree, node)
    path = jnp.where((path != NO_NODE) & active, path, config.num_nodes)
    return tree.replace(pending=_add(tree.pending, path, number)), path


def backup(
    config: SearchConfig, tree: Trees, node: Array, reward: Array, active: Array | bool = True
) -> Trees:
    """Backup: adds the reward of the leaf `node` to every node on its path to the root.

    The cached choices on the path are recomputed.

    A missing reward (NaN: the judge's reply could not be read) leaves all means unchanged: visits
    increase by one, and each sum by the node's own mean (by its parent's mean if it has no visits
    yet, by 0 at the root). So the search moves on instead of returning to the same node forever.
    Records and preference pairs are made from real rewards only (`host_node.py`).

    The first reward of a terminal node, real or substituted, is stored and reused on later visits.

    Args:
        config: static settings.
        tree: one tree, without the batch axis.
        node: int32 scalar, the evaluated leaf.
        reward: float32 scalar; NaN if missing.
        active: bool scalar; if false, nothing changes.
    """
    words = _tie_words(config, tree)
    tree, path = add_reward(config, tree, node, reward, active)
    if config.in_flight == 1:
        # The evaluated node is a leaf and has no choice. With several lanes it may have been
        # expanded by another lane in the meantime, and its choice must then be renewed too.
        path, words = path[1:], words[:-1]
    tree = _renew(config, tree, path, words)
    return tree.replace(turn=tree.turn + active)


def add_reward(
    config: SearchConfig, tree: Trees, node: Array, reward: Array, active: Array | bool
) -> tuple[Trees, Array]:
    """`backup` without the choices, for the visits after the budget, which select nothing.

    Returns:
        (tree, path): path is [max_depth + 1] i32, from the node to the root, then N.
    """
    path = _path_to_root(config, tree, node)
    valid = path != NO_NODE
    visits = get(tree.visits, path)
    value_sum = get(tree.value_sum, path)
    mean = jnp.where(valid & (visits > 0), value_sum / jnp.maximum(visits, 1), 0.0)
    stand_in = jnp.where(visits > 0, mean, jnp.append(mean[1:], 0.0))
    added = jnp.where(jnp.isfinite(reward), reward, stand_in)  # one infinity would drown the rest
    scored = active & get(tree.is_terminal, node) & jnp.isnan(get(tree.reward, node))
    # `added` is never NaN, so the last term is always true. It is there as a data dependency: the
    # writes come after all reads of the old statistics (a traced actor's too), and XLA can then
    # update the arrays in place instead of copying them.
    path = jnp.where(valid & active & ~jnp.isnan(added), path, config.num_nodes)
    tree = tree.replace(
        visits=_set(tree.visits, path, visits + 1),
        value_sum=_set(tree.value_sum, path, value_sum + added),
        reward=_set(tree.reward, jnp.where(scored, node, config.num_nodes), added[0]),
    )
    return tree, path


def actions_to(config: SearchConfig, tree: Trees, node: Array) -> Array:
    """The actions (child numbers) on the path from the root to `node`.

    For user-defined actors, which can derive the state of a node from its actions.

    Args:
        config: static settings.
        tree: one tree, without the batch axis.
        node: int32 scalar.

    Returns:
        [max_depth] i32, child numbers from 0; NO_NODE from the depth of the node on.
    """
    path = _path_to_root(config, tree, node)[:-1]
    parent = get(tree.parent, path)
    is_step = (path != NO_NODE) & (parent != NO_NODE)
    actions = path - get(tree.children, parent)[:, 0]  # siblings have consecutive indices
    depths = jnp.where(is_step, get(tree.depth, path) - 1, config.max_depth)
    return _set(jnp.full(config.max_depth, NO_NODE, jnp.int32), depths, actions)


def next_unvisited(tree: Trees) -> Array:
    """Lowest index of a node that was never visited, or NO_NODE if there is none: int32 scalar."""
    waiting = unvisited(tree)
    return jnp.where(waiting.any(), jnp.argmax(waiting), NO_NODE).astype(jnp.int32)


def unvisited(trees: Trees) -> Array:
    """Bool mask [B, N] ([N] for one tree) of the nodes that exist and were never visited."""
    nodes = jnp.arange(trees.visits.shape[-1])
    return (trees.visits == 0) & (nodes < trees.num_nodes[..., None])


def _path_to_root(config: SearchConfig, tree: Trees, node: Array) -> Array:
    """[max_depth + 1] i32: the node, its parent, ..., the root, then NO_NODE."""

    def up(node, _):
        return jnp.where(node == NO_NODE, NO_NODE, get(tree.parent, node)), node

    return lax.scan(up, node, None, config.max_depth + 1, unroll=_unroll(config))[1]


def _renew(config: SearchConfig, tree: Trees, path: Array, words: Array) -> Trees:
    """Recomputes the best child of each node of `path` [P], with one tie-break word each."""
    chosen = jax.vmap(functools.partial(_choose, config, tree))(path, words)
    if config.in_flight > 1:
        # `path` may begin with a leaf here, for which `_choose` returns no valid index.
        inner = get(tree.children, path)[:, 0] != NO_NODE
        path = jnp.where(inner, path, config.num_nodes)
    return tree.replace(choice=_set(tree.choice, path, chosen))


def _choose(config: SearchConfig, tree: Trees, node: Array, word: Array) -> Array:
    """The child of `node` with the highest selection score: int32 scalar."""
    children = get(tree.children, node)
    visits = get(tree.visits, children)
    mean = get(tree.value_sum, children) / jnp.maximum(visits, 1)
    parent_visits = get(tree.visits, node)
    if config.in_flight > 1:  # WU-UCT: pending visits count here, after the mean was taken
        visits += get(tree.pending, children)
        parent_visits += get(tree.pending, node)
    parent_visits = parent_visits.astype(jnp.float32)
    prior = get(tree.prior, children)
    scores = SCORES[config.score](mean, visits, prior, parent_visits, config.c)
    # Siblings have consecutive indices, so a child number is an offset from the first child.
    return children[0] + _best(config, jnp.where(children == NO_NODE, -jnp.inf, scores), word)


def _best(config: SearchConfig, scores: Array, word: Array) -> Array:
    """Index of the highest score of [M]: int32 scalar.

    Ties go to the lowest index, or to one of them at random by the u32 `word`.
    """
    if config.tie_break == "first":
        return jnp.argmax(scores).astype(jnp.int32)
    tied = scores == scores.max()
    rank = jnp.cumsum(tied)
    # Multiply and shift maps 24 random bits to 0 .. ties - 1 without a division. The product fits
    # into 32 bits because M is at most 256 (checked by `SearchConfig`).
    drawn = ((word >> 8) * rank[-1].astype(jnp.uint32)) >> 24
    return jnp.argmax(rank > drawn).astype(jnp.int32)


def _tie_words(config: SearchConfig, tree: Trees) -> Array:
    """Random words [max_depth + 1] u32 for the ties of this turn: one per level.

    The last one is for `expand`. They are hashes of (key, turn, level): drawing them by threefry
    takes as long as all the rest of an iteration.
    """
    levels = jnp.arange(config.max_depth + 1)
    if config.tie_break == "first":
        return levels.astype(jnp.uint32)
    counter = tree.turn * (config.max_depth + 1) + levels
    low, high = jax.random.key_data(tree.key)
    return _hash(_hash(low ^ counter.astype(jnp.uint32)) + high)


def _hash(word: Array) -> Array:
    """The 32-bit integer hash lowbias32: a bijection with little avalanche bias.

    The constants are from C. Wellons' search for such hashes (hash-prospector).
    """
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def _unroll(config: SearchConfig) -> int:
    """Unroll factor of a walk: on a GPU each loop iteration costs kernel launches."""
    return min(config.max_depth + 1, 16)


def get(array: Array, index: Array) -> Array:
    """array[index] without bounds checks; a NO_NODE index reads entry 0, which callers mask."""
    return array.at[jnp.maximum(index, 0)].get(
        mode="promise_in_bounds", wrap_negative_indices=False
    )


def _set(array: Array, index: Array, value: Array) -> Array:
    """The array with array[index] = value; a write to index N is dropped."""
    return array.at[index].set(value, mode="drop", wrap_negative_indices=False)


def _add(array: Array, index: Array, number: int) -> Array:
    """The array with `number` added at the distinct indices; an update of index N is dropped."""
    return array.at[index].add(number, mode="drop", wrap_negative_indices=False)
