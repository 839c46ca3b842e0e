"""Length-controlled win rates: a known effect is taken away, and the fit is scipy's."""

import numpy as np
import pytest
from scipy import optimize

from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.length_control import (
    controlled_win_rates,
    fit_logistic,
    length_controlled,
)


def sigmoid(scores):
    return 1 / (1 + np.exp(-scores))


def made(theta, length_effect, difficulty_effect=0.0, rows=800, shift=300.0):
    """Preferences as the regression supposes them, with their probabilities for labels."""
    draw = np.random.default_rng(3)
    differences = draw.normal(shift, 500.0, rows)
    difficulty = draw.normal(size=rows)
    length = np.tanh(differences / differences.std())
    scores = theta + length_effect * length + difficulty_effect * difficulty
    return sigmoid(scores), differences, difficulty


def test_a_known_effect_of_length_is_taken_away():
    preferences, differences, _ = made(theta=-0.5, length_effect=2.0)
    assert preferences.mean() > 0.55 > sigmoid(-0.5)
    (found,) = controlled_win_rates(preferences, differences, None, np.ones((1, 800)))
    assert found == pytest.approx(sigmoid(-0.5), abs=1e-3)


def test_without_an_effect_of_length_nothing_changes():
    preferences, differences, _ = made(theta=0.3, length_effect=0.0)
    (found,) = controlled_win_rates(preferences, differences, None, np.ones((1, 800)))
    assert found == pytest.approx(preferences.mean(), abs=1e-3)


def test_the_difficulty_of_instructions_stays_in_the_prediction():
    preferences, differences, difficulty = made(0.4, 1.5, difficulty_effect=2.0)
    (found,) = controlled_win_rates(preferences, differences, difficulty, np.ones((1, 800)))
    assert found == pytest.approx(sigmoid(0.4 + 2.0 * difficulty).mean(), abs=2e-3)


def test_the_sign_of_all_differences_and_preferences_can_be_turned():
    preferences, differences, _ = made(theta=-0.5, length_effect=2.0)
    weights = np.random.default_rng(0).integers(0, 3, (4, 800)).astype(float)
    found = controlled_win_rates(preferences, differences, None, weights)
    turned = controlled_win_rates(1 - preferences, -differences, None, weights)
    np.testing.assert_allclose(found, 1 - turned, atol=1e-9)


def test_each_fit_is_the_minimum_that_scipy_finds():
    draw = np.random.default_rng(1)
    features = draw.normal(size=(60, 3))
    targets = draw.uniform(size=60)
    weights = draw.multinomial(60, np.ones(60) / 60, size=3).astype(float)
    found = fit_logistic(features, targets, weights)
    for row, weight in zip(found, weights, strict=True):

        def loss(coefficients, weight=weight):
            scores = features @ coefficients
            each = np.logaddexp(0, scores) - targets * scores
            return weight @ each + 1e-4 * weight.sum() / 2 * coefficients @ coefficients

        wanted = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(row, wanted.x, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_side_that_wins_always_has_a_finite_fit(value):
    differences = np.linspace(-100.0, 100.0, 50)
    (found,) = controlled_win_rates(np.full(50, value), differences, None, np.ones((1, 50)))
    assert found == pytest.approx(value, abs=2e-3)


def test_perfect_separation_by_length_is_no_quality():
    differences = np.linspace(-100.0, 100.0, 50)
    preferences = (differences > 0).astype(float)
    (found,) = controlled_win_rates(preferences, differences, None, np.ones((1, 50)))
    assert found == pytest.approx(0.5, abs=1e-6)


def test_answers_of_equal_length_have_their_plain_win_rate():
    (found,) = controlled_win_rates(
        np.array([1.0, 0.5, 0.0, 0.0]), np.zeros(4), None, np.ones((1, 4))
    )
    assert found == pytest.approx(0.375, abs=1e-4)


def test_a_sample_that_holds_nothing_has_no_figure():
    found = controlled_win_rates(
        np.array([1.0, 0.0]), np.array([1.0, -2.0]), None, np.zeros((1, 2))
    )
    assert np.isnan(found).all()


def test_the_statistic_takes_lengths_and_difficulty_out_of_the_scores():
    preferences, differences, difficulty = made(0.4, 1.5, difficulty_effect=2.0, rows=50)
    rows = [
        Graded(Case("0", ""), Answer("x", "0"), {"length_difference": a, "difficulty": b})
        for a, b in zip(differences, difficulty, strict=True)
    ]
    weights = np.ones((1, 50))
    np.testing.assert_array_equal(
        length_controlled(rows, preferences, weights),
        controlled_win_rates(preferences, differences, difficulty, weights),
    )
    # where one difficulty is not known, there is no such term
    rows[0] = Graded(rows[0].case, rows[0].answer, {"length_difference": differences[0]})
    np.testing.assert_array_equal(
        length_controlled(rows, preferences, weights),
        controlled_win_rates(preferences, differences, None, weights),
    )
