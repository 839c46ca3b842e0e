"""The losses of SFT, step-level DPO and the PRM, as pure functions of log-probs and scores."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def sft_loss(logps: jax.Array, weights: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Numerator and denominator of the mean negative log-likelihood of the targets.

    L = - sum_t w_t log p_t / sum_t w_t. The two sums are returned separately, so that micro-batches
    can be added before the division: a mean of the means of micro-batches with different numbers of
    tokens would be biased.

    Args:
      logps: log-probabilities of the targets, any shape.
      weights: same shape; 0 where a target does not count.

    Returns:
      (- sum w log p, sum w), scalars.
    """
    return -jnp.sum(logps * weights), jnp.sum(weights)


def step_dpo_loss(
    chosen: jax.Array,
    rejected: jax.Array,
    ref_chosen: jax.Array,
    ref_rejected: jax.Array,
    beta: float,
) -> jax.Array:
    """The paper's step-level DPO loss of B pairs.

    L = -log sigmoid(beta (log pi(z_w | x, s) - log ref(z_w | x, s))
                     - beta (log pi(z_l | x, s) - log ref(z_l | x, s)))

    With an empty path s and whole answers z this is plain DPO.

    Args:
      chosen: `[B]`, log pi(z_w | x, s): sum (not mean) of the log-probs of the tokens of the chosen
        step z_w, given the prompt x and the shared path s.
      rejected: `[B]`, log pi(z_l | x, s) of the rejected step.
      ref_chosen: `[B]`, log ref(z_w | x, s), by the reference model.
      ref_rejected: `[B]`, log ref(z_l | x, s).
      beta: strength of the pull towards the reference.

    Returns:
      `[B]` losses.
    """
    return -jax.nn.log_sigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def prm_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Bradley-Terry loss of the process reward model: `[B]` scores of each side -> `[B]` losses.

    L = -log sigmoid(r(x, s_w) - r(x, s_l))
    """
    return -jax.nn.log_sigmoid(chosen - rejected)
