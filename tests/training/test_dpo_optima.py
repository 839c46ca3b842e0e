"""What the losses of DPO have their least value at, for a policy over a handful of answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.training.losses import dpo_margin, pair_loss
from stair_jax.training.pair_loss import PairLossSettings

NUM_ANSWERS = 6
LENGTHS = np.array([2.0, 9.0, 4.0, 30.0, 12.0, 7.0])  # tokens of the answers


@pytest.fixture
def problem():
    """A policy over six answers, their helpfulness r and their safety g."""
    generator = np.random.default_rng(4)
    logits, helpfulness, safety = generator.normal(size=(3, NUM_ANSWERS))
    return log_normalised(logits), 2 * helpfulness, 2 * safety


def log_normalised(logits):
    return logits - np.log(np.exp(logits).sum())


CHOSEN, REJECTED = np.nonzero(~np.eye(NUM_ANSWERS, dtype=bool))  # all pairs of two answers


def loss(logits, reference, share, beta, penalty):
    policy = jax.nn.log_softmax(logits)
    sides = [values[side] for values in (policy, reference) for side in (CHOSEN, REJECTED)]
    offset = PairLossSettings(length_penalty=penalty).offset(LENGTHS[CHOSEN], LENGTHS[REJECTED], {})
    margin = dpo_margin(*sides, beta)
    return jnp.mean(share * pair_loss(margin if offset is None else margin + offset))


gradient = jax.jit(jax.grad(loss), static_argnums=4)
hessian = jax.jit(jax.hessian(loss), static_argnums=4)


def dpo(reference, reward, beta, penalty=0.0):
    """The policy with the least loss on all pairs, each as often as Bradley and Terry prefer it."""
    share = 1 / (1 + np.exp(reward[REJECTED] - reward[CHOSEN]))
    logits = np.array(reference)
    for _ in range(30):  # Newton's method; a constant in the logits changes nothing
        arguments = logits, reference, share, beta, penalty
        step = np.linalg.pinv(hessian(*arguments), rcond=1e-6) @ np.asarray(gradient(*arguments))
        logits = logits - step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-9))
    return log_normalised(logits)


def test_a_length_penalty_is_a_cost_of_each_token(problem):
    """As R-DPO (arXiv 2403.19159) has it: the optimum of reward less alpha a token."""
    reference, reward, _ = problem
    beta, alpha = 0.8, 0.1
    plain, short = dpo(reference, reward, beta), dpo(reference, reward, beta, alpha)
    optimum = log_normalised(reference + (reward - alpha * LENGTHS) / beta)
    np.testing.assert_allclose(short, optimum, atol=2e-3)
    lengths = [float(np.exp(policy) @ LENGTHS) for policy in (plain, short)]
    assert lengths[1] < lengths[0] - 0.5


@pytest.mark.parametrize("multiplier", [0.5, 2.0])
def test_dpo_on_safety_behind_dpo_on_helpfulness_is_the_constrained_optimum(problem, multiplier):
    """Stepwise alignment (SACPO, arXiv 2404.11049).

    Stages of beta and beta / lambda give pi proportional to ref exp((r + lambda g) / beta).
    """
    reference, helpfulness, safety = problem
    beta = 0.8
    helpful = dpo(reference, helpfulness, beta)
    np.testing.assert_allclose(helpful, log_normalised(reference + helpfulness / beta), atol=2e-3)
    found = dpo(helpful, safety, beta / multiplier)
    optimum = log_normalised(reference + (helpfulness + multiplier * safety) / beta)
    np.testing.assert_allclose(found, optimum, atol=2e-3)
    assert np.abs(optimum - helpful).max() > 0.5
    # The order does not matter, as the exponents add up.
    safe = dpo(reference, safety, beta / multiplier)
    np.testing.assert_allclose(dpo(safe, helpfulness, beta), optimum, atol=2e-3)


def test_the_optimum_maximises_reward_and_safety_less_the_divergence(problem):
    reference, helpfulness, safety = problem
    beta, multiplier = 0.8, 2.0

    def objective(policy):
        gain = helpfulness + multiplier * safety - beta * (policy - reference)
        return float(np.sum(np.exp(policy) * gain))

    helpful = dpo(reference, helpfulness, beta)
    best = objective(dpo(helpful, safety, beta / multiplier))
    generator = np.random.default_rng(0)
    for scale in (0.01, 0.1, 1.0):
        for _ in range(20):
            other = log_normalised(
                reference
                + (helpfulness + multiplier * safety) / beta
                + scale * generator.normal(size=NUM_ANSWERS)
            )
            assert objective(other) < best + 1e-5
    # As much safety with the full beta is another problem.
    assert objective(dpo(helpful, safety, beta)) < best - 0.01
