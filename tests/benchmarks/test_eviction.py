"""Simulated eviction: what each policy may and may not do to the same trees."""

import math

import pytest

from benchmarks.eviction import (
    by_future,
    by_gap,
    by_path,
    by_rate,
    least_recent,
    simulate,
)

CAPACITY = 6 * 700.0


def run(rank, capacity=CAPACITY):
    return simulate(6, 24, 4, 1.0, rank, capacity)


@pytest.fixture(scope="module")
def least():
    return run(least_recent, math.inf)


@pytest.fixture(scope="module")
def recent():
    return run(least_recent)


def test_without_eviction_each_tree_prefills_its_prompt_and_its_judgements(least):
    sampled, prefilled, again = least.totals
    judged = sum(search.actor.judged for search in least.searches)
    assert (prefilled, again) == (6 * 120 + 50 * judged, 0)
    assert sampled > 100 * judged  # a reply is of some 130 tokens


@pytest.mark.parametrize("rank", [by_path, by_gap, by_rate])
def test_no_policy_changes_the_trees_or_what_they_use(rank, least, recent):
    other = run(rank)
    assert other.uses == recent.uses == least.uses
    sampled, prefilled, again = other.totals
    assert sampled == least.totals[0]
    assert prefilled - again == least.totals[1], "all that is more had been there before"
    assert again > 0


def test_who_knows_the_future_prefills_least(recent):
    known = run(by_future(recent.uses)).totals
    assert known[2] < min(run(rank).totals[2] for rank in (least_recent, by_path, by_gap, by_rate))
