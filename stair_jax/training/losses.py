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
    return pair_loss(dpo_margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def dpo_margin(
    chosen: jax.Array,
    rejected: jax.Array,
    ref_chosen: jax.Array,
    ref_rejected: jax.Array,
    beta: float,
    lengths: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """By how much the implicit rewards of B pairs differ; arguments as of `step_dpo_loss`.

    With `lengths`, the tokens `[B]` of the chosen and of the rejected steps, an implicit reward is
    beta times the mean over the tokens of a step and not the sum (length-normalised DPO of Tulu 3,
    arXiv 2411.15124; without a reference it is the reward of SimPO, arXiv 2405.14734).
    """
    won, lost = chosen - ref_chosen, rejected - ref_rejected
    if lengths is not None:
        # A group that is not in use has no tokens.
        won, lost = (
            each / jnp.maximum(length, 1.0)
            for each, length in zip((won, lost), lengths, strict=True)
        )
    return beta * (won - lost)


def pair_loss(margin: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """-log sigmoid(margin) of B pairs.

    With label smoothing e, the cross entropy of pairs of which a share e is the wrong way round:
    -(1 - e) log sigmoid(margin) - e log sigmoid(-margin), the conservative DPO of Mitchell's
    "A note on DPO with noisy preferences and relationship to IPO" (2023).
    """
    loss = -jax.nn.log_sigmoid(margin)
    if not label_smoothing:
        return loss
    return (1 - label_smoothing) * loss - label_smoothing * jax.nn.log_sigmoid(-margin)


def prm_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Bradley-Terry loss of the process reward model: `[B]` scores of each side -> `[B]` losses.

    L = -log sigmoid(r(x, s_w) - r(x, s_l))
    """
    return -jax.nn.log_sigmoid(chosen - rejected)
