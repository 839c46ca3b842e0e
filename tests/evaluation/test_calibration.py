"""Judges against labels: confusion, accuracy, kappa, and the shares of Rogan and Gladen."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.evaluation.bootstrap import percentiles
from stair_jax.evaluation.calibration import Calibration, Correction, calibrate


def a_calibration(**more):
    """The 2 x 2 table 20, 5 / 10, 15, whose kappa is .4: the example of most textbooks."""
    judge = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    return calibrate(judge, ["yes"] * 25 + ["no"] * 25, **more)


def test_confusion_accuracy_and_kappa_by_hand():
    found = a_calibration()
    assert found.labels == ("no", "yes")
    assert found.counts == ((15, 10), (5, 20))  # rows: the true label
    assert found.agreement.share.value == pytest.approx(0.7)
    assert found.agreement.kappa.value == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert found.agreement.kappa.low < 0.4 < found.agreement.kappa.high


def test_a_missing_verdict_is_counted_and_decides_nothing():
    found = calibrate(["yes", None, "no", None], ["yes", "yes", "no", "no"])
    assert found.counts == ((1, 0), (0, 1))
    assert (found.agreement.n, found.agreement.missing) == (2, 2)


def test_labels_that_only_one_side_uses_are_part_of_the_matrix():
    found = calibrate(["partial", "no"], ["yes", "no"])
    assert found.labels == ("no", "partial", "yes")
    assert found.counts == ((1, 0, 0), (0, 0, 0), (0, 1, 0))


def test_labels_of_another_number_of_rows_are_refused():
    with pytest.raises(ValueError):
        calibrate(["yes"], ["yes", "no"])


def test_without_rows_there_is_no_agreement():
    found = calibrate([], [])
    assert (found.labels, found.counts, found.agreement.share) == ((), (), None)
    assert "no labelled row" in found.correction(("yes",)).reason
    assert "undefined" in found.markdown()


def test_sensitivity_and_specificity_of_labels_taken_together():
    judge = ["full", "partial", "none", "full", "none", "none", "partial"]
    true = ["full", "full", "full", "partial", "none", "none", "none"]
    found = calibrate(judge, true).correction(("full", "partial"))
    assert (found.hits, found.positives) == (3, 4)
    assert (found.rejections, found.negatives) == (2, 3)
    assert (found.sensitivity, found.specificity) == (0.75, 2 / 3)


def test_a_corrected_share_by_hand():
    correction = Correction(hits=80, positives=100, rejections=90, negatives=100)
    assert correction.value(0.38) == pytest.approx((0.38 + 0.9 - 1) / 0.7)  # .4


@given(
    st.floats(0, 1),
    st.integers(60, 100),
    st.integers(60, 100),
)
def test_correction_undoes_what_the_judge_does(share, hits, rejections):
    correction = Correction(hits, 100, rejections, 100)
    seen = share * correction.sensitivity + (1 - share) * (1 - correction.specificity)
    assert correction.value(seen) == pytest.approx(share, abs=1e-9)


def test_a_corrected_share_is_clipped():
    correction = Correction(80, 100, 90, 100)
    assert (correction.value(0.0), correction.value(1.0)) == (0.0, 1.0)
    samples = correction.samples(np.linspace(0, 1, 500))
    assert samples.min() == 0.0 and samples.max() == 1.0


def test_a_perfect_judge_changes_the_value_by_nothing_and_the_interval_by_what_is_not_known():
    correction = Correction(30, 30, 30, 30)
    assert correction.value(0.3) == pytest.approx(0.3)
    assert correction.samples(np.full(1000, 0.3)).std() > 0.005


@pytest.mark.parametrize(
    ("correction", "words"),
    [
        (Correction(50, 100, 50, 100), "hardly tells the labels apart"),
        (Correction(54, 100, 55, 100), "hardly tells the labels apart"),
        (Correction(10, 100, 10, 100), "hardly tells the labels apart"),  # the wrong way round
        (Correction(0, 0, 9, 10, ("a", "b")), "no labelled row is a or b"),
        (Correction(9, 10, 0, 0, ("a",)), "no labelled row is other than a"),
    ],
)
def test_a_judge_that_tells_nothing_corrects_nothing_and_says_so(correction, words):
    assert words in correction.reason
    assert np.isnan(correction.value(0.5))
    assert np.isnan(correction.samples(np.array([0.5]))).all()


@pytest.mark.parametrize(
    ("share", "sensitivity", "specificity", "cases", "labelled"),
    [(0.3, 0.9, 0.8, 200, 100), (0.02, 0.9, 0.95, 200, 60), (0.7, 0.75, 0.7, 300, 150)],
)
def test_corrected_intervals_cover_the_true_share(share, sensitivity, specificity, cases, labelled):
    """In about .95 of 300 studies; the interval of the share that the judge sees does not."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    for study in range(300):
        hits, rejections = rng.binomial(labelled, (sensitivity, specificity))
        correction = Correction(int(hits), labelled, int(rejections), labelled)
        seen = share * sensitivity + (1 - share) * (1 - specificity)
        found = rng.binomial(cases, seen) / cases
        samples = rng.binomial(cases, found, 500) / cases  # what the bootstrap of 0 and 1 draws
        raw = percentiles(found, samples)
        fixed = percentiles(correction.value(found), correction.samples(samples, study))
        covered += fixed.low <= share <= fixed.high
        naive += raw.low <= share <= raw.high
    assert 0.92 <= covered / 300 <= 0.99
    assert naive / 300 < 0.6


def test_rows_of_one_cluster_tell_less():
    clustered = a_calibration(clusters=[index // 5 for index in range(50)]).agreement.share
    single = a_calibration().agreement.share
    assert clustered.high - clustered.low > 1.3 * (single.high - single.low)


def test_markdown_shows_the_matrix_and_escapes_names():
    text = a_calibration(judge="a|b", source="x_y.csv").markdown()
    assert text.splitlines()[:4] == [
        "| a\\|b says | no | yes | recall |",
        "| --- | ---: | ---: | ---: |",
        "| true: no | 15 | 10 | 0.600 |",
        "| true: yes | 5 | 20 | 0.800 |",
    ]
    assert "50 labelled rows of x\\_y.csv; 0 without a verdict. Accuracy 0.700 [" in text


def test_a_calibration_is_read_as_it_was_written():
    for found in (a_calibration(judge="j"), calibrate([], [])):
        assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("row", [{}, {"schema": 1, "labels": 3}, None, {"schema": "a"}])
def test_a_damaged_calibration_is_one_clear_line(row):
    with pytest.raises(UserError, match="the calibration cannot be read"):
        Calibration.from_dict(row)


def test_a_newer_calibration_is_refused():
    with pytest.raises(UserError, match="newer"):
        Calibration.from_dict(a_calibration().to_dict() | {"schema": 2})
