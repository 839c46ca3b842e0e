"""Platt calibration: hand-computed curves, gradients of zero, and judges that are upside down."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.search.judging import calibration
from stair_jax.search.judging.calibration import Calibrator, Platt, fit


def test_perfect_verdicts_get_platts_targets():
    """With two cases a side the targets are 3/4 and 1/4: the slope is the logit of 3/4."""
    curve = fit([1.0, 1.0, -1.0, -1.0], [1, 1, -1, -1])
    assert curve.slope == pytest.approx(math.log(3)) and curve.offset == pytest.approx(0, abs=1e-9)
    assert curve(1.0) == pytest.approx(0.5) and curve(-1.0) == pytest.approx(-0.5)


def test_a_judge_that_is_upside_down_gets_a_negative_slope():
    curve = fit([-1.0, -1.0, 1.0, 1.0], [1, 1, -1, -1])
    assert curve.slope == pytest.approx(-math.log(3))
    assert curve(-1.0) > 0 > curve(1.0)


def test_scores_that_say_nothing_get_the_share_of_good_cases():
    """Three good cases of four: targets 4/5, 4/5, 4/5 and 1/3."""
    curve = fit([0.2] * 4, [1, 1, 1, -1])
    assert curve(0.2) == pytest.approx(2 * (3 * 4 / 5 + 1 / 3) / 4 - 1)


def test_a_zero_in_the_wrong_place_is_moved():
    scores = [0.84, 0.9, 0.8, 0.24, 0.3, 0.2]
    curve = fit(scores, [1, 1, 1, -1, -1, -1])
    assert [curve(score) > 0 for score in scores] == [True] * 3 + [False] * 3


@given(st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([-1, 1])), min_size=2, max_size=60))
def test_the_fit_is_where_the_likelihood_has_no_slope(cases):
    scores, labels = [score for score, _ in cases], [label for _, label in cases]
    curve = fit(scores, labels)
    good, bad = labels.count(1), labels.count(-1)
    if not good or not bad:
        assert curve is None
        return
    high, low = (good + 1) / (good + 2), 1 / (bad + 2)
    targets = np.where(np.array(labels) > 0, high, low)
    logits = curve.slope * np.array(scores) + curve.offset
    misses = 1 / (1 + np.exp(-logits)) - targets
    assert abs(misses.sum()) < 1e-5 and abs(misses @ np.array(scores)) < 1e-5


def test_the_sign_is_taken_after_the_calibration_and_of_safety_alone():
    turned = Platt(-2.0, 0.5)
    calibrate = Calibrator({"safety": turned, "helpfulness": turned}, "sign")
    assert calibrate("safety", 0.9) == -1 and calibrate("safety", 0.1) == 1
    assert calibrate("helpfulness", 0.9) == turned(0.9)
    assert Calibrator({}, "expected")("safety", 0.4) == 0.4


def test_records_are_read_back():
    curves = {"safety": Platt(-2.0, 0.5)}
    assert calibration.from_record(calibration.to_record(curves)) == curves
