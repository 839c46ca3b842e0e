"""Shares of several labels without the judge's error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from stair_jax.evaluation.calibration import calibrate
from stair_jax.evaluation.corrected_shares import (
    corrected_shares,
    nearest_shares,
    onto_simplex,
)

LABELS = ("full", "none", "partial")


def a_calibration(matrix, labels=LABELS):
    """Of counts [true][judge]."""
    judge, true = [], []
    for label, row in zip(labels, matrix, strict=True):
        for other, count in zip(labels, row, strict=True):
            judge += [other] * count
            true += [label] * count
    return calibrate(judge, true, num_samples=10)


MATRIX = np.array([[80, 5, 15], [5, 90, 5], [20, 20, 60]])


def test_the_inverse_of_the_judges_matrix_by_hand():
    """True shares .5, .3, .2 give the judge .8 * .5 + .05 * .3 + .2 * .2 = .455 full, and so on."""
    seen = {"full": 455, "none": 335, "partial": 210}
    rows = [label for label, count in seen.items() for _ in range(count)]
    found = corrected_shares(a_calibration(MATRIX), [*rows, None])
    assert [found.shares[label].value for label in LABELS] == pytest.approx([0.5, 0.3, 0.2])
    assert (found.n, found.missing, found.reason) == (1000, 1, "")
    assert all(one.low < one.value < one.high for one in found.shares.values())


@pytest.mark.parametrize("positives", [15, 18, 30, 45, 54, 55])
def test_two_labels_are_corrected_as_by_rogan_and_gladen(positives):
    calibration = a_calibration([[70, 30], [10, 90]], ("no", "yes"))
    rows = ["yes"] * positives + ["no"] * (60 - positives)
    found = corrected_shares(calibration, rows)
    expected = calibration.correction(("yes",)).value(positives / 60)
    assert found.shares["yes"].value == pytest.approx(expected, abs=1e-7)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_the_constrained_solution_is_that_of_a_general_optimiser(seed, size):
    rng = np.random.default_rng(seed)
    matrix = (np.eye(size) + rng.dirichlet(np.ones(size), size)).T / 2
    seen = rng.dirichlet(np.full(size, 0.3))
    (found,) = nearest_shares(matrix[None], seen[None])
    assert found.min() >= 0 and found.sum() == pytest.approx(1, abs=1e-7)
    other = minimize(
        lambda p: ((matrix @ p - seen) ** 2).sum(),
        np.full(size, 1 / size),
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert ((matrix @ found - seen) ** 2).sum() <= other.fun + 1e-9


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_a_point_of_the_simplex_is_its_own_projection(point):
    projected = onto_simplex(np.array([point]))
    assert projected.sum() == pytest.approx(1) and projected.min() >= 0
    assert onto_simplex(projected) == pytest.approx(projected)


def test_intervals_cover_the_true_shares():
    """In about .95 of 100 studies with 100 labelled rows a label and 300 rows."""
    rng = np.random.default_rng(0)
    truth, rates = np.array([0.5, 0.3, 0.2]), MATRIX / 100
    covered = np.zeros(3)
    for study in range(100):
        counts = [rng.multinomial(100, row) for row in rates]
        seen = rng.multinomial(300, truth @ rates)
        rows = [label for label, count in zip(LABELS, seen, strict=True) for _ in range(count)]
        found = corrected_shares(a_calibration(counts), rows, num_samples=200, seed=study)
        estimates = [found.shares[label] for label in LABELS]
        covered += [one.low <= t <= one.high for one, t in zip(estimates, truth, strict=True)]
    assert (covered >= 88).all() and covered.mean() <= 99


@pytest.mark.parametrize(
    ("calibration", "rows", "words"),
    [
        (calibrate([], []), ["full"], "no labelled rows"),
        (a_calibration(MATRIX), ["full", "other"], "no labelled row is other"),
        (a_calibration([[9, 0, 0], [0, 9, 0], [0, 0, 0]]), ["none", "full"], ""),
        (calibrate(["b", "c"], ["b", "b"]), ["b"], "no labelled row is c"),
        (a_calibration([[5, 5], [5, 5]], ("a", "b")), ["a"], "hardly tells some labels apart"),
        (a_calibration(MATRIX), [None], "no row has a verdict"),
        (a_calibration(MATRIX * 9), ["none"] * 300, "beyond what the judge's errors"),
    ],
)
def test_without_a_correction_the_reason_is_said(calibration, rows, words):
    found = corrected_shares(calibration, rows, num_samples=20)
    assert words in found.reason
    assert bool(found.shares) == (not words)
