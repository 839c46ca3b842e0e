"""The tree search over a problem of your own: no language model, and no judge.

    python examples/search_with_your_own_actor.py

The problem: which of twelve items to take along, so that they are worth the most and weigh no more
than the bag can carry. An action decides on the next item, 0 to leave it and 1 to take it; an
answer is complete when all are decided on. Rewards are between 0 and 1.

The search runs twice. First with an actor in JAX, inside one jit, many trees side by side, with
different capacities. Then with an actor in NumPy, which the host asks in rounds: the way to go
when the actor is a model behind an API, a simulator, or a person.
"""

import jax
import jax.numpy as jnp
import numpy as np

import stair_jax as sj
from stair_jax.search import kernel

WORTH = (12, 7, 9, 15, 4, 6, 11, 8, 5, 14, 3, 10)
WEIGHT = (5, 3, 4, 8, 2, 3, 6, 3, 2, 7, 1, 5)
CAPACITIES = (10, 16, 22, 28)  # one tree each
ITEMS, TOTAL = len(WORTH), sum(WORTH)

CONFIG = sj.SearchConfig(
    num_iterations=400, num_children=2, max_depth=ITEMS, c=0.1, tie_break="first"
)


# The actor in JAX: two functions of (state, tree, node), of one tree. `state` is its capacity.


def expand(capacity, tree, node):
    """Both actions for the next item; one without it if that is too heavy."""
    actions = sj.actions_to(CONFIG, tree, node)  # [ITEMS], -1 where not decided
    taken = jnp.sum(jnp.where(actions == 1, jnp.array(WEIGHT), 0))
    depth = tree.depth[node]
    fits = taken + jnp.array(WEIGHT)[jnp.minimum(depth, ITEMS - 1)] <= capacity
    return sj.Expansion(
        num_children=jnp.where(fits, 2, 1),
        is_terminal=jnp.full(2, depth + 1 == ITEMS),
        prior=jnp.ones(2),
    )


def evaluate(capacity, tree, node):
    """A rollout: the remaining items in turn, each that still fits. Its worth is the reward."""

    def decide(bag, item):
        worth, weight = bag
        action, item_worth, item_weight = item
        take = jnp.where(action == kernel.NO_NODE, weight + item_weight <= capacity, action == 1)
        return (worth + take * item_worth, weight + take * item_weight), None

    items = (sj.actions_to(CONFIG, tree, node), jnp.array(WORTH), jnp.array(WEIGHT))
    (worth, _), _ = jax.lax.scan(decide, (0, 0), items)
    return worth / TOTAL


def search_in_jax():
    """The finished trees."""
    actor = sj.TracedActor(expand, evaluate)
    keys = jax.random.split(jax.random.key(0), len(CAPACITIES))
    return sj.search_trees(CONFIG, actor, keys, jnp.array(CAPACITIES))


# The actor in NumPy: the same two functions of a node's actions.


def expand_on_host(capacity, actions):
    """How many children, and whether they are terminal."""
    weight = sum(WEIGHT[item] for item, action in enumerate(actions) if action)
    fits = weight + WEIGHT[len(actions)] <= capacity
    return 2 if fits else 1, len(actions) + 1 == ITEMS


def evaluate_on_host(capacity, actions):
    """The reward of a rollout."""
    worth = weight = 0
    for item in range(ITEMS):
        fits = weight + WEIGHT[item] <= capacity
        if actions[item] if item < len(actions) else fits:
            worth, weight = worth + WORTH[item], weight + WEIGHT[item]
    return worth / TOTAL


def search_on_host():
    """The finished trees: rounds in which each tree says what it needs next."""
    batch = len(CAPACITIES)
    trees = kernel.init(CONFIG, jax.random.split(jax.random.key(0), batch))
    actions = [[()] for _ in range(batch)]  # of each node of each tree
    delivery = kernel.Delivery.empty(CONFIG, batch)
    while True:
        trees, selection = kernel.advance(CONFIG, trees, delivery)
        nodes, needs = np.asarray(selection.node)[:, 0], np.asarray(selection.need)[:, 0]
        if (needs == kernel.Need.DONE).all():
            break
        delivery = kernel.Delivery.empty(CONFIG, batch)
        for b in np.flatnonzero(needs != kernel.Need.DONE):
            done, capacity = actions[b][nodes[b]], CAPACITIES[b]
            if needs[b] == kernel.Need.EXPAND:
                count, is_terminal = expand_on_host(capacity, done)
                delivery.expanded[b] = True
                delivery.expansion.num_children[b] = count
                delivery.expansion.is_terminal[b] = is_terminal
                actions[b] += [(*done, action) for action in range(count)]
            else:
                delivery.rewarded[b] = True
                delivery.reward[b] = evaluate_on_host(capacity, done)
    rewards = np.zeros(trees.visits.shape, np.float32)
    for b, node in np.argwhere(kernel.unvisited(trees)):
        rewards[b, node] = evaluate_on_host(CAPACITIES[b], actions[b][node])
    return kernel.finish(CONFIG, trees, rewards, np.ones(batch, bool))


def best_path(trees, b):
    """The actions of the best complete answer of tree `b`."""
    tree = jax.tree.map(lambda leaf: leaf[b], trees)
    node = jnp.nanargmax(tree.reward)  # that of nodes that are not terminal is nan
    return sj.actions_to(CONFIG, tree, node).tolist()


def main():
    """Prints the best path of each tree, and whether both ways found the same."""
    in_jax, on_the_host = search_in_jax(), search_on_host()
    for b, capacity in enumerate(CAPACITIES):
        path = best_path(in_jax, b)
        taken = [item for item, action in enumerate(path) if action]
        worth, weight = (sum(values[item] for item in taken) for values in (WORTH, WEIGHT))
        print(
            f"capacity {capacity}: items {taken}, weight {weight}, worth {worth} "
            f"({TOTAL * evaluate_on_host(capacity, ()):.0f} in turn, without a search)"
        )
    same = all(best_path(in_jax, b) == best_path(on_the_host, b) for b in range(len(CAPACITIES)))
    print(f"the actor in NumPy found {'the same paths' if same else 'other paths'}")


if __name__ == "__main__":
    main()
