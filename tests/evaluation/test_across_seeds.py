"""Figures over seeds against hand-computed ones, single-seed ones, and simulated studies."""

import numpy as np
import pytest
import scipy.stats

from stair_jax.evaluation.across_seeds import seed_cell, seed_difference, t_quantile
from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.cells import cell, difference
from stair_jax.evaluation.statistics import ratio_to

SHARE, NUMBER = Metric("k", "k"), Metric("k", "k", unit="")


def rows(values, attack="none", clusters=None, **scores):
    """Graded answers to the cases 0, 1, ...; None: without a score."""
    return [
        Graded(
            Case(str(n), "", cluster=clusters[n] if clusters else ""),
            Answer("b", str(n), attack, model="m"),
            {"k": None if value is None else float(value)}
            | {name: float(own[n]) for name, own in scores.items()},
        )
        for n, value in enumerate(values)
    ]


def test_one_seed_has_the_figure_and_the_interval_of_a_table_of_one_run():
    clusters = [f"c{n // 2}" for n in range(20)]
    own = rows(np.random.default_rng(0).random(20) < 0.6, clusters=clusters)
    one, plain = seed_cell({"0": own}, SHARE), cell(own, SHARE)
    assert (one.value, one.low, one.high) == (plain.value, plain.low, plain.high)
    assert (one.seeds, one.n, one.cases) == (1, 20, 20)
    other = rows(np.random.default_rng(1).random(20) < 0.3, clusters=clusters)
    both, pair = seed_difference({"0": own}, {"0": other}, SHARE), difference(own, other, SHARE)
    assert (both.value, both.low, both.high) == (pair.value, pair.low, pair.high)


def test_the_mean_and_range_of_seeds_by_hand():
    found = seed_cell({"0": rows([1, 0, 0, None]), "1": rows([1, 1, 0, 1])}, SHARE)
    assert found.value == pytest.approx((1 / 3 + 3 / 4) / 2)
    assert (found.least, found.greatest) == (pytest.approx(1 / 3), 0.75)
    assert (found.seeds, found.n, found.cases, found.missing) == (2, 4, 4, 1)


def test_where_seeds_alone_differ_the_interval_is_theirs():
    """Two of three seeds are drawn: percentiles are the ends, moved by t of 2 degrees."""
    found = seed_cell({str(n): rows([value] * 30) for n, value in enumerate((1, 2, 6))}, NUMBER)
    ratio = scipy.stats.t.ppf(0.975, 2) / scipy.stats.norm.ppf(0.975)
    assert found.value == 3
    assert found.low == pytest.approx(3 - ratio * 2) and found.high == pytest.approx(3 + ratio * 3)


def test_where_seeds_do_not_differ_the_interval_is_that_of_the_cases():
    own = rows(np.random.default_rng(0).random(50) < 0.6)
    found, one = seed_cell(dict.fromkeys("abc", own), SHARE), cell(own, SHARE)
    assert found.value == pytest.approx(one.value)
    assert (found.low, found.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_the_variance_of_the_mean_is_that_of_the_analysis_of_variance():
    """Cases and seeds cross: their variances add, each over its number."""
    rng = np.random.default_rng(3)
    seeds, cases = rng.normal(0, 0.3, 40), rng.normal(0, 1.5, 60)
    values = seeds[:, None] + cases
    found = seed_cell({str(n): rows(own) for n, own in enumerate(values)}, NUMBER, 4000)
    expected = np.sqrt(seeds.var(ddof=1) / 40 + cases.var(ddof=1) / 60)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.05)


def test_a_share_is_never_outside_of_its_range():
    found = seed_cell({"0": rows([1] * 9 + [0]), "1": rows([0] * 4 + [1] * 6)}, SHARE)
    assert 0 <= found.low < found.value < found.high == 1


def test_what_all_cases_of_all_seeds_agree_on_has_the_exact_bound():
    found = seed_cell({"0": rows([0] * 20), "1": rows([0] * 20)}, SHARE)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-3)


def test_several_attacks_are_averaged_in_each_seed():
    def seed(first, second):
        return rows(first, "a") + rows(second, "b")

    found = seed_cell({"0": seed([1, 1], [0, 0]), "1": seed([1, 0], [1, 0])}, SHARE)
    assert found.value == 0.5 and found.n == 2


def test_a_statistic_that_is_no_mean():
    metric = Metric("k", "k", ratio_to("below"), unit="")
    found = seed_cell({"0": rows([1, 2], below=[2, 2]), "1": rows([1, 0], below=[1, 1])}, metric)
    assert found.value == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_why_there_is_no_figure_or_no_interval():
    assert seed_cell({"0": rows([None, None])}, SHARE).note == "no answer has a score"
    assert seed_cell({"0": []}, SHARE).note == "no cases"
    alone = seed_cell({"0": rows([1, 0], clusters=["c", "c"])}, SHARE)
    assert (alone.value, alone.low) == (0.5, None) and "one cluster" in alone.note
    metric = Metric("k", "k", ratio_to("below"))
    assert "undefined" in seed_cell({"0": rows([1], below=[0])}, metric).note
    apart = seed_difference({"0": rows([1, None])}, {"0": rows([None, 1])}, SHARE)
    assert apart.value is None and apart.note == "no case has a number in both"


def test_differences_are_paired_by_case_and_by_seed():
    """What makes a case hard, and what a seed does to both rows, is no part of the error."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 2, 30) + rng.normal(0, 2, (3, 1))
    first = {str(n): rows(own + 0.5) for n, own in enumerate(base)}
    second = {str(n): rows(own) for n, own in enumerate(base)}
    found = seed_difference(first, second, NUMBER)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5) and found.high == pytest.approx(0.5)
    assert (found.seeds, found.n) == (3, 30)


def test_differences_without_common_seeds_are_paired_by_case_alone():
    """As beside a model that was not trained: the seeds of the other row are its error."""
    cases = np.random.default_rng(0).normal(0, 2, 30)
    trained = {str(n): rows(cases + value) for n, value in enumerate((1, 2, 6))}
    found = seed_difference(trained, {"base": rows(cases)}, NUMBER)
    ratio = scipy.stats.t.ppf(0.975, 2) / scipy.stats.norm.ppf(0.975)
    assert found.value == pytest.approx(3)
    assert found.low == pytest.approx(3 - ratio * 2) and found.high == pytest.approx(3 + ratio * 3)


def test_differences_are_of_the_cases_that_both_have():
    found = seed_difference({"0": rows([1, 1, None, 0])}, {"0": rows([0, None, 1, 0])}, SHARE)
    assert (found.value, found.n) == (0.5, 2)
    found = seed_difference({"0": rows([1, 1, 0])}, {"x": rows([0, 1])}, SHARE)
    assert (found.value, found.n) == (0.5, 2)


def test_the_quantile_of_students_t():
    for freedom in (1, 1.5, 2, 7, 60, 199, 201, 1e5):
        expected = scipy.stats.t.ppf(0.975, freedom)
        assert t_quantile(freedom) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.5)])
def test_intervals_hold_the_true_mean_of_simulated_studies(seeds, spread):
    """Cases and seeds are drawn anew in each study; cases of a seed are not independent of others'.

    With 120 studies, .95 has a standard error of .02.
    """
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(120):
        values = rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 1, 40)
        values = values + rng.normal(0, 0.5, (seeds, 40))
        found = seed_cell({str(n): rows(own) for n, own in enumerate(values)}, NUMBER, 200)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 120 <= 1
