"""The tree kernel of SI-MCTS (STAIR section 3): statistics and control flow of many trees at once.

Texts and tokens of the steps stay on the host; here a step is a node index. Functions without a
batch axis (`select`, `expand`, `backup`, `next_unvisited`) are the method, `jax.vmap` lifts them to
many trees, and `advance` is one jitted scheduling round:

    trees = init(config, keys)
    delivery = Delivery.empty(config, batch)
    while True:
        trees, selection = advance(config, trees, delivery)    # consumes its `trees`
        ...                                  # the host starts what `selection` asks for
        delivery = ...                       # and delivers what is ready, of any of the trees
    trees = finish(config, trees, rewards, done)               # the visits after the budget

A tree has one request in flight. `selection.need` says, for every tree, what it asks for:

    EXPAND   sample steps after `node`, drop exact duplicates, deliver the rest
    ROLLOUT  sample a full answer from `node`, deliver its reward
    SCORE    `node` is terminal: deliver the reward of its own answer
    DONE     the budget is used up
    WAIT     nothing new; the request in flight still stands

A terminal node whose reward is known costs no request: `advance` backs it up and selects again.

The choice among the children of a node depends on the statistics of the node and of its children,
which change only when an iteration passes through the node. So `backup` renews the choices along
its path, all levels in parallel, and `select` only follows them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from stair_jax.search.scores import SCORES
from stair_jax.search.tree_data import (
    NO_NODE,
    ROOT,
    Delivery,
    Expansion,
    Need,
    SearchConfig,
    Selection,
    TracedActor,
    Trees,
)


@functools.partial(jax.jit, static_argnums=0)
def init(config: SearchConfig, keys: Array) -> Trees:
    """Fresh trees that hold the root alone.

    Args:
        config: static settings.
        keys: typed random keys [B], one a tree.
    """
    return jax.vmap(functools.partial(_init_one, config))(keys)


def _init_one(config: SearchConfig, key: Array) -> Trees:
    nodes = config.num_nodes
    return Trees(
        parent=jnp.full(nodes, NO_NODE, jnp.int32),
        children=jnp.full((nodes, config.num_children), NO_NODE, jnp.int32),
        depth=jnp.zeros(nodes, jnp.int32),
        visits=jnp.zeros(nodes, jnp.int32),
        value_sum=jnp.zeros(nodes, jnp.float32),
        reward=jnp.full(nodes, jnp.nan, jnp.float32),
        is_terminal=jnp.zeros(nodes, bool),
        prior=jnp.zeros(nodes, jnp.float32),
        choice=jnp.full(nodes, NO_NODE, jnp.int32),
        num_nodes=jnp.int32(1),
        iterations=jnp.int32(0),
        leaf=jnp.int32(NO_NODE),
        key=key,
    )


def select(config: SearchConfig, tree: Trees) -> tuple[Array, Array]:
    """Walks from the root to a leaf along the choices: (node, Need), both scalars.

    A terminal leaf needs SCORE, whether or not its reward is known already.
    """

    def down(_, node):
        following = _get(tree.choice, node)
        return jnp.where(following == NO_NODE, node, following)

    node = lax.fori_loop(0, config.max_depth, down, jnp.int32(ROOT), unroll=_unroll(config))
    expandable = (
        (_get(tree.visits, node) > 0)
        & (_get(tree.depth, node) < config.max_depth)
        & (tree.num_nodes + config.num_children <= config.num_nodes)
    )
    need = jnp.where(expandable, Need.EXPAND, Need.ROLLOUT)
    return node, jnp.where(_get(tree.is_terminal, node), Need.SCORE, need)


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
        jnp.maximum(_get(tree.visits, node), 1),
        config.c,
    )
    chosen = slots[0] + _best(config, jnp.where(exists, scores, -jnp.inf), words[-1])
    tree = tree.replace(
        parent=_set(tree.parent, made, node),
        children=_set(tree.children, parent, jnp.where(exists, slots, NO_NODE)),
        depth=_set(tree.depth, made, _get(tree.depth, node) + 1),
        is_terminal=_set(tree.is_terminal, made, expansion.is_terminal),
        prior=_set(tree.prior, made, expansion.prior),
        choice=_set(tree.choice, parent, chosen),
        num_nodes=tree.num_nodes + jnp.where(grown, expansion.num_children, 0),
    )
    return tree, jnp.where(grown, chosen, node)


def backup(
    config: SearchConfig, tree: Trees, node: Array, reward: Array, active: Array | bool = True
) -> Trees:
    """Adds the reward of the leaf `node` to all nodes from it up to the root; renews their choices.

    A missing reward (nan) moves no mean: the visits rise by one and each sum by the node's own mean
    (that of its parent where it has no visits, 0 at the root). The first reward of a terminal node
    is kept as its own, be it real or the stand-in. Where the scalar `active` is false nothing
    changes.
    """
    words = _tie_words(config, tree)[:-1]
    tree, path = _add_reward(config, tree, node, reward, active)
    # The evaluated node is a leaf: only the nodes above it have a choice to make.
    chosen = jax.vmap(functools.partial(_choose, config, tree))(path[1:], words)
    return tree.replace(choice=_set(tree.choice, path[1:], chosen))


def _add_reward(
    config: SearchConfig, tree: Trees, node: Array, reward: Array, active: Array | bool
) -> tuple[Trees, Array]:
    """`backup` without the choices: (tree, path [max_depth + 1] from the node up, N beyond it)."""
    path = _path_to_root(config, tree, node)
    valid = path != NO_NODE
    visits = _get(tree.visits, path)
    value_sum = _get(tree.value_sum, path)
    mean = jnp.where(valid & (visits > 0), value_sum / jnp.maximum(visits, 1), 0.0)
    stand_in = jnp.where(visits > 0, mean, jnp.append(mean[1:], 0.0))
    added = jnp.where(jnp.isnan(reward), stand_in, reward)
    scored = active & _get(tree.is_terminal, node) & jnp.isnan(_get(tree.reward, node))
    # `added` is never nan; that the writes depend on it puts them after every read of the old
    # statistics, by an actor too, so that XLA updates the arrays in place and copies nothing.
    path = jnp.where(valid & active & ~jnp.isnan(added), path, config.num_nodes)
    tree = tree.replace(
        visits=_set(tree.visits, path, visits + 1),
        value_sum=_set(tree.value_sum, path, value_sum + added),
        reward=_set(tree.reward, jnp.where(scored, node, config.num_nodes), added[0]),
    )
    return tree, path


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
        return jnp.where(node == NO_NODE, NO_NODE, _get(tree.parent, node)), node

    return lax.scan(up, node, None, config.max_depth + 1, unroll=_unroll(config))[1]


def _choose(config: SearchConfig, tree: Trees, node: Array, word: Array) -> Array:
    """The child of `node` with the highest score: scalar i32."""
    children = _get(tree.children, node)
    visits = _get(tree.visits, children)
    mean = _get(tree.value_sum, children) / jnp.maximum(visits, 1)
    parent_visits = _get(tree.visits, node).astype(jnp.float32)
    prior = _get(tree.prior, children)
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
    """Random words [max_depth + 1] u32 of this evaluation: one a level, the last for `expand`.

    Hashes of (key, evaluation, level): threefry would take as long as the rest of an iteration.
    """
    levels = jnp.arange(config.max_depth + 1)
    if config.tie_break == "first":
        return levels.astype(jnp.uint32)
    counter = tree.iterations * (config.max_depth + 1) + levels
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


def _get(array: Array, index: Array) -> Array:
    """array[index]; a NO_NODE index reads some value that the caller masks."""
    return array.at[jnp.maximum(index, 0)].get(
        mode="promise_in_bounds", wrap_negative_indices=False
    )


def _set(array: Array, index: Array, value: Array) -> Array:
    """Array with array[index] = value; an index of N is dropped."""
    return array.at[index].set(value, mode="drop", wrap_negative_indices=False)


def _complete(
    config: SearchConfig, trees: Trees, node: Array, reward: Array, active: Array
) -> Trees:
    """Ends an iteration of the active trees [B]: backs up and frees them."""
    trees = jax.vmap(functools.partial(backup, config))(trees, node, reward, active)
    return trees.replace(
        iterations=trees.iterations + active, leaf=jnp.where(active, NO_NODE, trees.leaf)
    )


def _run_ahead(
    config: SearchConfig, trees: Trees, node: Array, reward: Array, active: Array
) -> tuple[Trees, Selection]:
    """Backs up rewards, selects in all free trees, and goes on while terminals have known rewards.

    `node`, `reward` and `active` [B] are the first evaluations to back up.
    """

    def body(state):
        trees, node, reward, active, _ = state
        trees = _complete(config, trees, node, reward, active)
        free = (trees.leaf == NO_NODE) & (trees.iterations < config.num_iterations)
        node, need = jax.vmap(functools.partial(select, config))(trees)
        reward = jax.vmap(_get)(trees.reward, node)
        known = free & (need == Need.SCORE) & ~jnp.isnan(reward)
        need = jnp.where(free, need, jnp.where(trees.leaf == NO_NODE, Need.DONE, Need.WAIT))
        return trees, node, reward, known, need

    # -1 stands for "not selected yet": the first pass always runs.
    state = (trees, node, reward, active, jnp.full(node.shape, -1, jnp.int32))
    trees, node, _, _, need = lax.while_loop(
        lambda state: state[3].any() | (state[4] < 0).any(), body, state
    )
    selected = (need != Need.DONE) & (need != Need.WAIT)
    trees = trees.replace(leaf=jnp.where(selected, node, trees.leaf))
    return trees, Selection(jnp.where(selected, node, NO_NODE), need)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def advance(config: SearchConfig, trees: Trees, delivery: Delivery) -> tuple[Trees, Selection]:
    """One scheduling round: applies the delivery, then selects in every tree that is free.

    `trees` is donated: use the returned ones. What is delivered belongs to the node in flight
    (`trees.leaf`); a delivery to a tree without a request is ignored. A tree that was expanded asks
    in the same round for the evaluation of the child that was selected, or, when there are no
    children, for a rollout of the leaf itself.
    """
    busy = trees.leaf != NO_NODE
    expanded = delivery.expanded & busy
    rewarded = delivery.rewarded & busy & ~expanded
    trees, node = jax.vmap(functools.partial(expand, config))(
        trees, trees.leaf, delivery.expansion, expanded
    )
    trees = trees.replace(leaf=node)
    terminal = jax.vmap(_get)(trees.is_terminal, node)
    trees, selection = _run_ahead(config, trees, node, delivery.reward, rewarded)
    evaluation = jnp.where(terminal, Need.SCORE, Need.ROLLOUT)
    return trees, Selection(
        node=jnp.where(expanded, node, selection.node),
        need=jnp.where(expanded, evaluation, selection.need),
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def restart(config: SearchConfig, trees: Trees, keys: Array, mask: Array) -> Trees:
    """Replaces the trees of the mask [B] by fresh ones with the keys [B]; `trees` is donated."""
    fresh = init(config, keys)

    def pick(new, old):
        return jnp.where(mask.reshape(mask.shape + (1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(pick, fresh, trees)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def finish(config: SearchConfig, trees: Trees, rewards: Array, mask: Array) -> Trees:
    """Backs up one evaluation of every never-visited node, in the order of the nodes.

    Args:
        config: static settings.
        trees: donated.
        rewards: [B, N] f32, read where `unvisited(trees)`; nan: missing.
        mask: [B] bool, the trees to finish.
    """
    return _visit_unvisited(config, trees, lambda _, nodes: jax.vmap(_get)(rewards, nodes), mask)


def _visit_unvisited(
    config: SearchConfig, trees: Trees, reward_of: Callable[[Trees, Array], Array], mask: Array
) -> Trees:
    """Visits every unvisited node of the trees of the mask [B]; reward_of(trees, nodes [B])."""
    add = jax.vmap(lambda *args: _add_reward(config, *args)[0])
    waiting = unvisited(trees) & mask[:, None]

    def visit(node, trees):
        nodes = jnp.full(mask.shape, node)
        return add(trees, nodes, reward_of(trees, nodes), waiting[:, node])

    return lax.fori_loop(0, trees.num_nodes.max(), visit, trees)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="final_visits", donate_argnums=2)
def search(
    config: SearchConfig, actor: TracedActor, trees: Trees, state: Any, *, final_visits: bool = True
) -> Trees:
    """The whole search of fresh trees with a traced actor, inside one jit.

    Args:
        config: static settings.
        actor: the traced actor; hashable (a tuple of module-level functions).
        trees: as made by `init`; donated.
        state: pytree with a leading axis B, handed to the actor.
        final_visits: whether to visit each never-visited node after the budget.
    """
    expand_with, evaluate_with = jax.vmap(actor.expand), jax.vmap(actor.evaluate)

    def iterate(_, trees):
        node, need = jax.vmap(functools.partial(select, config))(trees)
        trees, node = jax.vmap(functools.partial(expand, config))(
            trees, node, expand_with(state, trees, node), need == Need.EXPAND
        )
        known = jax.vmap(_get)(trees.reward, node)
        reward = jnp.where(jnp.isnan(known), evaluate_with(state, trees, node), known)
        return _complete(config, trees, node, reward, jnp.full(node.shape, True))

    trees = lax.fori_loop(0, config.num_iterations, iterate, trees)
    if not final_visits:
        return trees
    return _visit_unvisited(
        config, trees, functools.partial(evaluate_with, state), jnp.full(trees.leaf.shape, True)
    )
