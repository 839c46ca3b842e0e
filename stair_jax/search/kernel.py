"""The jitted, batched tree search of SI-MCTS: statistics and control flow of many trees at once.

`mcts.py` has the algorithm for one tree; here it is vmapped over B trees. Texts and tokens of the
steps stay on the host, so a step is just a node index. Model and judge run outside of jit, so the
search is a coroutine: `advance` is one scheduling round, which applies results and says what to
compute next.

    trees = init(config, keys)
    delivery = Delivery.empty(config, batch)
    while True:
        trees, selection = advance(config, trees, delivery)    # consumes its `trees`
        ...                                  # the host starts what `selection` asks for
        delivery = ...                       # and delivers whatever is ready, for any of the trees
    trees = finish(config, trees, rewards, done)               # the visits after the budget

A tree has W = `config.in_flight` lanes, each with at most one request in flight. `selection.need`
says what each lane asks for:

    EXPAND   sample steps after `node`, drop exact duplicates, deliver the rest
    ROLLOUT  sample a full answer from `node`, deliver its reward
    SCORE    `node` is terminal: deliver the reward of its own answer
    DONE     the budget is used up and nothing is in flight
    WAIT     nothing new: a request is in flight, or there is nothing to ask for yet

A terminal node whose reward is known costs no request: `advance` backs it up and selects again.
While that reward is being computed for one lane, no other lane asks for it again; it waits.

With one lane, a tree depends only on its key and on the results delivered to it. With several, it
also depends on the order in which its lanes are served (see `runner.py`, which fixes that order).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from stair_jax.search.mcts import (
    actions_to,
    add_reward,
    add_virtual_visit,
    backup,
    expand,
    get,
    next_unvisited,
    remove_virtual_visit,
    select,
    unvisited,
)
from stair_jax.search.tree import (
    NO_NODE,
    Delivery,
    Expansion,
    Need,
    SearchConfig,
    Selection,
    TracedActor,
    Trees,
)

__all__ = [
    "NO_NODE",
    "Delivery",
    "Expansion",
    "Need",
    "SearchConfig",
    "Selection",
    "TracedActor",
    "Trees",
    "actions_to",
    "advance",
    "backup",
    "expand",
    "finish",
    "init",
    "next_unvisited",
    "restart",
    "search",
    "search_trees",
    "select",
    "unvisited",
]


@functools.partial(jax.jit, static_argnums=0)
def init(config: SearchConfig, keys: Array) -> Trees:
    """New trees with only a root.

    Args:
        config: static settings.
        keys: typed random keys [B], one per tree, for breaking ties.
    """
    return jax.vmap(functools.partial(_init_one, config))(keys)


def _init_one(config: SearchConfig, key: Array) -> Trees:
    nodes = config.num_nodes
    return Trees(
        parent=jnp.full(nodes, NO_NODE, jnp.int32),
        children=jnp.full((nodes, config.width), NO_NODE, jnp.int32),
        depth=jnp.zeros(nodes, jnp.int32),
        visits=jnp.zeros(nodes, jnp.int32),
        pending=jnp.zeros(nodes, jnp.int32),
        value_sum=jnp.zeros(nodes, jnp.float32),
        reward=jnp.full(nodes, jnp.nan, jnp.float32),
        is_terminal=jnp.zeros(nodes, bool),
        prior=jnp.zeros(nodes, jnp.float32),
        choice=jnp.full(nodes, NO_NODE, jnp.int32),
        num_nodes=jnp.int32(1),
        iterations=jnp.int32(0),
        leaf=jnp.full(config.in_flight, NO_NODE, jnp.int32),
        expanding=jnp.zeros(config.in_flight, bool),
        turn=jnp.int32(0),
        key=key,
    )


def _complete(
    config: SearchConfig, trees: Trees, node: Array, reward: Array, active: Array
) -> Trees:
    """Backs up one iteration of each active tree; `node`, `reward` and `active` are [B]."""
    trees = jax.vmap(functools.partial(backup, config))(trees, node, reward, active)
    return trees.replace(iterations=trees.iterations + active)


def _run_ahead(
    config: SearchConfig, trees: Trees, node: Array, reward: Array, active: Array
) -> tuple[Trees, Selection]:
    """Backs up the delivered rewards, then selects for the free lanes until none can get more.

    Iterations that end at a terminal node with a known reward are completed on the way, without a
    request. `node`, `reward` and `active` [B] are the delivered evaluations.
    """
    lanes = config.in_flight

    def body(state):
        trees, selection, node, reward, known, _ = state
        trees = _complete(config, trees, node, reward, known)
        free = trees.leaf == NO_NODE
        num_free = free.sum(axis=1)
        # Iterations in flight count against the budget, so that it is met exactly.
        left = config.num_iterations - trees.iterations - (lanes - num_free)
        may = (num_free > 0) & (left > 0)
        node, need = jax.vmap(functools.partial(select, config))(trees)
        reward = jax.vmap(get)(trees.reward, node)
        terminal = need == Need.SCORE
        known = may & terminal & ~jnp.isnan(reward)
        is_asked = terminal & (trees.leaf == node[:, None]).any(axis=1)
        asks = may & ~known & ~is_asked
        lane = free & (jnp.cumsum(free, axis=1) == 1) & asks[:, None]  # one-hot: first free lane
        trees = trees.replace(
            leaf=jnp.where(lane, node[:, None], trees.leaf),
            expanding=jnp.where(lane, (need == Need.EXPAND)[:, None], trees.expanding),
        )
        if lanes > 1:
            trees = jax.vmap(functools.partial(add_virtual_visit, config))(trees, node, asks)
        selection = Selection(
            node=jnp.where(lane, node[:, None], selection.node),
            need=jnp.where(lane, need[:, None], selection.need),
        )
        # Go on where an iteration was free (it is backed up at the top of the next pass), or where
        # another lane is free. A lane that has to wait stops its tree until the next delivery.
        return trees, selection, node, reward, known, known | (asks & (num_free > 1) & (left > 1))

    nothing = Selection(
        node=jnp.full(trees.leaf.shape, NO_NODE, jnp.int32),
        need=jnp.full(trees.leaf.shape, Need.WAIT, jnp.int32),
    )
    state = (trees, nothing, node, reward, active, jnp.full(node.shape, True))
    trees, selection, *_ = lax.while_loop(lambda state: state[-1].any(), body, state)
    is_done = trees.iterations >= config.num_iterations
    need = jnp.where(is_done[:, None], Need.DONE, selection.need)
    return trees, selection.replace(need=need)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def advance(config: SearchConfig, trees: Trees, delivery: Delivery) -> tuple[Trees, Selection]:
    """One scheduling round: applies the delivery, then selects for every lane that is free.

    A result is applied to the node for which its lane has a request in flight (`trees.leaf`); a
    delivery to a lane without a request is ignored. A lane whose leaf was expanded asks, in the
    same round, for the evaluation of the selected child, or for a rollout of the leaf itself if
    there are no children.

    Args:
        config: static settings.
        trees: B trees; donated.
        delivery: at most one result per tree, from the host (NumPy arrays [B, ...]).

    Returns:
        (trees, selection): the requests [B, W] that the host has to start.
    """
    here = jnp.arange(config.in_flight) == delivery.lane[:, None]  # [B, W], one-hot
    # A masked maximum instead of a gather; NO_NODE is below every node index.
    leaf = jnp.where(here, trees.leaf, NO_NODE).max(axis=1)
    expanded = delivery.expanded & (leaf != NO_NODE)
    rewarded = delivery.rewarded & (leaf != NO_NODE) & ~expanded
    trees, node = jax.vmap(functools.partial(expand, config))(
        trees, leaf, delivery.expansion, expanded
    )
    evaluated = here & expanded[:, None]
    ended = here & rewarded[:, None]
    trees = trees.replace(
        leaf=jnp.where(evaluated, node[:, None], jnp.where(ended, NO_NODE, trees.leaf)),
        expanding=trees.expanding & ~evaluated & ~ended,
    )
    if config.in_flight > 1:
        trees = jax.vmap(functools.partial(remove_virtual_visit, config))(trees, node, rewarded)
    # Where nothing was expanded, `node` is the leaf itself and this need is not used.
    need = jnp.where(jax.vmap(get)(trees.is_terminal, node), Need.SCORE, Need.ROLLOUT)
    trees, selection = _run_ahead(config, trees, node, delivery.reward, rewarded)
    return trees, Selection(
        node=jnp.where(evaluated, node[:, None], selection.node),
        need=jnp.where(evaluated, need[:, None], selection.need),
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def restart(config: SearchConfig, trees: Trees, keys: Array, mask: Array) -> Trees:
    """Replaces the trees in `mask` [B] by new ones with `keys` [B]; `trees` is donated.

    All B new trees are made and the masked ones picked: the shapes stay static, so that starting a
    tree in any slot never recompiles.
    """
    fresh = init(config, keys)

    def pick(new, old):
        return jnp.where(mask.reshape(mask.shape + (1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(pick, fresh, trees)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def finish(config: SearchConfig, trees: Trees, rewards: Array, mask: Array) -> Trees:
    """Backs up one evaluation of every node that was never visited, in the order of the nodes.

    With these visits the paper's search ends: every node then has a value. Nothing is expanded.

    Args:
        config: static settings.
        trees: donated.
        rewards: [B, N] f32, read where `unvisited(trees)`; NaN if missing.
        mask: [B] bool, the trees to finish.
    """
    return _visit_unvisited(config, trees, lambda _, nodes: jax.vmap(get)(rewards, nodes), mask)


def _visit_unvisited(
    config: SearchConfig, trees: Trees, reward_of: Callable[[Trees, Array], Array], mask: Array
) -> Trees:
    """Visits every unvisited node of the trees in `mask` [B].

    `reward_of(trees, nodes [B])` gives the rewards [B] of one node of each tree.
    """
    add = jax.vmap(lambda *args: add_reward(config, *args)[0])
    # Before the loop: a visit also counts for the ancestors, which may be unvisited themselves.
    waiting = unvisited(trees) & mask[:, None]

    def visit(node, trees):
        nodes = jnp.full(mask.shape, node)
        return add(trees, nodes, reward_of(trees, nodes), waiting[:, node])

    return lax.fori_loop(0, trees.num_nodes.max(), visit, trees)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="final_visits", donate_argnums=2)
def search(
    config: SearchConfig, actor: TracedActor, trees: Trees, state: Any, *, final_visits: bool = True
) -> Trees:
    """The whole search inside one jit, where model and judge are traceable functions.

    Iterations are sequential, whatever `config.in_flight` is.

    Args:
        config: static settings.
        actor: stands in for model and judge; hashable (a tuple of module-level functions).
        trees: as made by `init`; donated.
        state: pytree with a leading axis B, handed to the actor.
        final_visits: whether to visit each never-visited node after the budget.
    """
    config = dataclasses.replace(config, in_flight=1)
    expand_with, evaluate_with = jax.vmap(actor.expand), jax.vmap(actor.evaluate)

    def iterate(_, trees):
        node, need = jax.vmap(functools.partial(select, config))(trees)
        # Under vmap both sides of a branch would run: the actor is called for all, then masked.
        trees, node = jax.vmap(functools.partial(expand, config))(
            trees, node, expand_with(state, trees, node), need == Need.EXPAND
        )
        known = jax.vmap(get)(trees.reward, node)
        reward = jnp.where(jnp.isnan(known), evaluate_with(state, trees, node), known)
        return _complete(config, trees, node, reward, jnp.full(node.shape, True))

    trees = lax.fori_loop(0, config.num_iterations, iterate, trees)
    if not final_visits:
        return trees
    return _visit_unvisited(
        config,
        trees,
        functools.partial(evaluate_with, state),
        jnp.full(trees.num_nodes.shape, True),
    )


def search_trees(
    config: SearchConfig,
    actor: TracedActor,
    keys: Array,
    state: Any = None,
    *,
    final_visits: bool = True,
) -> Trees:
    """Searches B new trees with a user-defined traceable actor, inside one jit.

    Args:
        config: static settings.
        actor: two module-level JAX functions without a batch axis: `expand(state, tree, node)`
            returns the children of a node as an `Expansion`, whose arrays have
            `config.width` entries, and `evaluate(state, tree, node)` a float32 reward (NaN
            if missing). They identify the node by `actions_to`.
        keys: typed random keys [B], one per tree, for breaking ties.
        state: pytree with a leading axis B; the actor of each tree gets its slice.
        final_visits: whether to visit each never-visited node once after the budget, as the paper
            does.

    Returns:
        the trees; see `Trees` for their fields [B, ...].
    """
    return search(config, actor, init(config, keys), state, final_visits=final_visits)
