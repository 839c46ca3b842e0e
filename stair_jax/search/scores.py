"""Selection scores of a child (STAIR section 3); arrays of one shape, or that broadcast to one.

Arguments: mean of the backed-up rewards and visits of the child, its prior (mean token probability
of its step), visits of its parent (at least 1), weight of exploration c.
"""

import jax.numpy as jnp
from jax import Array


def ucb1(mean: Array, visits: Array, prior: Array, parent_visits: Array, c: float) -> Array:
    """UCB1: mean + c sqrt(ln(parent_visits) / visits); 100 c for an unvisited child."""
    del prior
    explored = mean + c * jnp.sqrt(jnp.log(parent_visits) / jnp.maximum(visits, 1))
    return jnp.where(visits == 0, 100 * c, explored)


def puct(mean: Array, visits: Array, prior: Array, parent_visits: Array, c: float) -> Array:
    """PUCB: mean + c prior sqrt(parent_visits) / (1 + visits); 100 c prior if unvisited."""
    explored = mean + c * prior * jnp.sqrt(parent_visits) / (1 + visits)
    return jnp.where(visits == 0, 100 * c * prior, explored)


SCORES = {"ucb1": ucb1, "puct": puct}
