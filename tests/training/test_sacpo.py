"""Two stages of DPO solve the constrained problem step by step (SACPO, arXiv 2404.11049)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.training.losses import step_dpo_loss

NUM_ANSWERS = 6


@pytest.fixture
def problem():
    """A policy over six answers, their helpfulness r and their safety g."""
    generator = np.random.default_rng(4)
    logits, helpfulness, safety = generator.normal(size=(3, NUM_ANSWERS))
    return log_normalised(logits), 2 * helpfulness, 2 * safety


def log_normalised(logits):
    return logits - np.log(np.exp(logits).sum())


CHOSEN, REJECTED = np.nonzero(~np.eye(NUM_ANSWERS, dtype=bool))  # all pairs of two answers


def loss(logits, reference, share, beta):
    policy = jax.nn.log_softmax(logits)
    sides = [values[side] for values in (policy, reference) for side in (CHOSEN, REJECTED)]
    return jnp.mean(share * step_dpo_loss(*sides, beta))


gradient = jax.jit(jax.grad(loss))
hessian = jax.jit(jax.hessian(loss))


def dpo(reference, reward, beta):
    """The policy with the least loss on all pairs, each as often as Bradley and Terry prefer it."""
    share = 1 / (1 + np.exp(reward[REJECTED] - reward[CHOSEN]))
    logits = np.array(reference)
    for _ in range(30):  # Newton's method; a constant in the logits changes nothing
        arguments = logits, reference, share, beta
        step = np.linalg.pinv(hessian(*arguments), rcond=1e-6) @ np.asarray(gradient(*arguments))
        logits = logits - step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-9))
    return log_normalised(logits)


@pytest.mark.parametrize("multiplier", [0.5, 2.0])
def test_dpo_on_safety_behind_dpo_on_helpfulness_is_the_constrained_optimum(problem, multiplier):
    """Stages of beta and beta / lambda give pi proportional to ref exp((r + lambda g) / beta)."""
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
