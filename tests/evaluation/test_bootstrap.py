"""Bootstrap intervals against hand-computed ones and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stair_jax.evaluation import bootstrap
from stair_jax.evaluation.bootstrap import (
    Estimate,
    extreme_samples,
    mean_interval,
    percentiles,
    resample,
)


def test_nothing_has_no_mean():
    assert mean_interval([], []) is None


def test_one_cluster_has_no_spread():
    assert mean_interval([1.0, 0.0, 0.0, 1.0], ["a"] * 4) == Estimate(0.5, 0.5, 0.5)


def test_two_clusters_by_hand():
    # draws aa, ab, ba, bb with probability 1/4 each; their means are 1, 3/4, 3/4, 0
    assert mean_interval([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]) == Estimate(0.75, 0.0, 1.0)


def test_the_mean_weighs_prompts_and_not_clusters():
    estimate = mean_interval([1.0, 1.0, 1.0, 0.0], [1, 1, 1, 2], num_samples=10)
    assert estimate.value == 0.75


def test_single_prompts_as_the_binomial_says():
    values = [1.0] * 30 + [0.0] * 20
    estimate = mean_interval(values, range(50), num_samples=20_000)
    low, high = stats.binom.ppf([0.025, 0.975], 50, 0.6) / 50
    assert estimate.low == pytest.approx(low, abs=0.021)  # within one prompt
    assert estimate.high == pytest.approx(high, abs=0.021)


def test_single_prompts_as_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=80)
    estimate = mean_interval(list(values), range(80), num_samples=10_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = expected.high - expected.low
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(expected.low, abs=0.05 * width)
    assert estimate.high == pytest.approx(expected.high, abs=0.05 * width)


def test_prompts_about_the_same_item_tell_less():
    answers = np.random.default_rng(0).integers(0, 2, size=40).repeat(9).astype(float)
    clustered = mean_interval(list(answers), list(np.arange(40).repeat(9)))
    single = mean_interval(list(answers), range(360))
    ratio = (clustered.high - clustered.low) / (single.high - single.low)
    assert ratio == pytest.approx(3.0, rel=0.15)  # sqrt(9)


@given(
    values=st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), min_size=1, max_size=30)
)
def test_the_interval_is_around_the_mean_and_within_the_values(values):
    numbers, clusters = zip(*values, strict=True)
    estimate = mean_interval(numbers, clusters, num_samples=200)
    assert estimate == mean_interval(numbers, clusters, num_samples=200)
    assert min(numbers) - 1e-9 <= estimate.low <= estimate.high <= max(numbers) + 1e-9
    assert estimate.value == pytest.approx(np.mean(numbers))


def test_the_means_of_the_pocket_world_keep_their_bits():
    """Recorded before other figures than means were resampled."""
    values = list(np.random.default_rng(7).gamma(2.0, size=40))
    assert mean_interval(values, [f"c{index % 13}" for index in range(40)]) == Estimate(
        1.650849509157807, 1.296992173089739, 2.04544354857376
    )
    assert mean_interval([1, 0, 1, 1, 0, 1, 0], list("aabbcde"), num_samples=500, seed=3) == (
        Estimate(0.5714285714285714, 0.2, 0.8888888888888888)
    )


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_the_samples_of_any_figure_are_those_of_the_mean(monkeypatch, block):
    """Whatever the size of the blocks in which they are made."""
    monkeypatch.setattr(bootstrap, "_BLOCK", block)
    values, clusters = np.arange(12.0) ** 2, list("aabbccddeeff")
    samples = resample(lambda w: w @ values / w.sum(axis=1), clusters, num_samples=300, seed=5)
    mean = mean_interval(list(values), clusters, num_samples=300, seed=5)
    found = percentiles(values.mean(), samples)
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high), rel=1e-12)


def test_a_sample_holds_all_rows_of_a_cluster_equally_often():
    weights = resample(lambda w: w, ["a", "b", "a", "c"], num_samples=50)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, [0, 1, 3]].sum(axis=1), np.full(50, 3.0))


def test_samples_without_a_figure_are_left_out():
    samples = np.array([np.nan, 1.0, 1.0, np.nan])
    assert percentiles(1.0, samples) == Estimate(1.0, 1.0, 1.0)
    assert percentiles(1.0, samples[:1]) is None


def test_an_interval_is_extended_to_its_value():
    assert percentiles(0.5, np.array([0.6, 0.7])).low == 0.5


@pytest.mark.parametrize("count", [1, 20, 313])
def test_a_share_that_all_rows_agree_on_has_the_bound_of_clopper_and_pearson(count):
    exact = stats.binomtest(0, count).proportion_ci(0.95, "exact").high
    found = percentiles(0.0, extreme_samples(0.0, count, 2000))
    assert found.low == 0.0 and found.high == pytest.approx(exact, rel=1e-3)
    full = percentiles(1.0, extreme_samples(1.0, count, 2000))
    assert (full.low, full.high) == pytest.approx((1 - found.high, 1.0))
