"""The three losses of STAIR, as pure functions of log-probabilities and scores."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def sft_loss(logps: jax.Array, weights: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Numerator and denominator of the mean negative log-likelihood (STAIR section 1).

    L = - sum_t w_t log p_t / sum_t w_t. The two sums are returned apart, so that the parts of a
    batch can be added before they are divided.

    Args:
      logps: of the targets, any shape.
      weights: of the targets, 0 where there is no loss; the same shape.
    """
    return -jnp.sum(logps * weights), jnp.sum(weights)


def step_dpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    ref_chosen: jax.Array,
    ref_rejected: jax.Array,
    beta: float,
) -> jax.Array:
    """Step-level DPO (STAIR section 5): `[B]` losses of `[B]` pairs.

    L = -log sigmoid(beta (log pi(z_w | x, s) - log ref(z_w | x, s))
                     - beta (log pi(z_l | x, s) - log ref(z_l | x, s)))

    Each argument is the sum of the log-probabilities of the tokens of a step z (not a mean), given
    the prompt x and the shared path s. An empty path and whole answers give plain DPO.
    """
    return -jax.nn.log_sigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def prm_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Bradley-Terry loss of scores (STAIR section 6): `[B]` losses of `[B]` pairs.

    L = -log sigmoid(r(x, s_w) - r(x, s_l))
    """
    return -jax.nn.log_sigmoid(chosen - rejected)
