"""Selection scores of MCTS: UCB1 (the paper's) and PUCT.

Elementwise on arrays that broadcast against each other, with the same arguments:

    mean           mean of the rewards backed up through the child
    visits         visits of the child
    prior          of the child, e.g. the mean token probability of its step
    parent_visits  visits of its parent, at least 1 (UCB1 takes the logarithm)
    c              exploration constant, a Python float
"""

import jax.numpy as jnp
from jax import Array


def ucb1(mean: Array, visits: Array, prior: Array, parent_visits: Array, c: float) -> Array:
    """UCB1: mean + c sqrt(ln(parent_visits) / visits); 100 c for an unvisited child.

    100 c stands in for infinity: unvisited children come first, and tie with one another.
    """
    del prior  # one signature for all scores
    # The maximum avoids a division by zero in the branch that `where` discards.
    explored = mean + c * jnp.sqrt(jnp.log(parent_visits) / jnp.maximum(visits, 1))
    return jnp.where(visits == 0, 100 * c, explored)


def puct(mean: Array, visits: Array, prior: Array, parent_visits: Array, c: float) -> Array:
    """PUCT: mean + c prior sqrt(parent_visits) / (1 + visits); 100 c prior if unvisited.

    The paper's released code has the formula as PUCB.
    """
    explored = mean + c * prior * jnp.sqrt(parent_visits) / (1 + visits)
    return jnp.where(visits == 0, 100 * c * prior, explored)


SCORES = {"ucb1": ucb1, "puct": puct}
