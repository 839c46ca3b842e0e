"""Why trees give no pairs, and pairs at other thresholds."""

import math
import random
from collections import Counter
from statistics import NormalDist

import pytest

from stair_jax.errors import UserError
from stair_jax.search.pair_candidates import NO_PAIRS, Candidates, why_no_pairs
from stair_jax.search.pair_report import (
    PairReportSettings,
    format_proposal,
    format_report,
    make_report,
    read_report,
    tree_gaps,
)
from stair_jax.search.preference_pairs import StepPairSettings, sibling_pairs
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.storage import write_json


def make_record(*nodes, id="t"):
    """A record with nodes (parent, value, visits, terminal), behind a root of value 0."""
    made = [Node(-1, "", (100, 101), 0, 99, 0.0)]
    for index, (parent, value, visits, terminal) in enumerate(nodes, start=1):
        depth = made[parent].depth + 1
        made.append(Node(parent, f"<{index}>", (index,), depth, visits, value, terminal=terminal))
    return TreeRecord(id, "why?", "safety", "s", "m", "c", tuple(made))


def reason(record, **settings):
    thresholds = StepPairSettings(**settings)
    candidates = Candidates(record, thresholds.max_tokens)
    pairs = candidates.siblings()
    assert not sibling_pairs(record, thresholds)[0]
    left_out = candidates.left_out(*pairs, thresholds.v0, thresholds.v1, thresholds.min_visits)
    return why_no_pairs(candidates.value, candidates.gap(*pairs), left_out)


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([], {}, "no_siblings"),
        ([(0, 1.0, 9, False), (1, 2.0, 9, False)], {}, "no_siblings"),
        ([(0, None, 0, True), (0, None, 0, True)], {}, "no_reward"),
        ([(0, 1.0, 9, False), (0, None, 0, True)], {}, "no_reward"),
        ([(0, 1.0, 9, False), (0, 1.0, 9, False)], {}, "equal_rewards"),
        ([(0, 2.0, 9, False), (0, 0.0, 3, False)], {}, "few_visits"),
        ([(0, 2.0, 9, False), (0, 1.6, 9, False)], {}, "small_gap"),
        ([(0, 0.7, 9, False), (0, 0.0, 9, False)], {}, "low_value"),
        ([(0, 2.0, 9, False), (0, 0.0, 9, False)], {"max_tokens": 2}, "too_long"),
        # Two thresholds leave each pair out: neither alone is to blame.
        ([(0, 0.7, 9, False), (0, 0.0, 3, False)], {}, "several"),
        # One pair has too small a gap, two have too few visits.
        (
            [(0, 2.0, 9, False), (0, 1.6, 9, False), (0, 0.0, 3, False)],
            {},
            "few_visits",
        ),
    ],
)
def test_a_tree_without_pairs_says_for_which_reason(nodes, settings, expected):
    assert reason(make_record(*nodes), **settings) == expected
    assert NO_PAIRS[expected]


def random_trees(seed, count=20):
    rng = random.Random(seed)
    for number in range(count):
        nodes = []
        for index in range(1, rng.randint(4, 30)):
            value = rng.choice([None, *(x / 4 for x in range(-8, 9))])
            visits = 0 if value is None else rng.randint(1, 8)
            nodes.append((rng.randrange(index), value, visits, rng.random() < 0.4))
        yield make_record(*nodes, id=f"t{number}")


def report_of(records, thresholds=(0.5, 0.5, 3), **settings):
    gaps = []
    for record in records:
        candidates = Candidates(record, 2048)
        gaps.append(tree_gaps(record, candidates, candidates.siblings()))
    return make_report(gaps, thresholds, PairReportSettings(**settings))


def test_each_cell_of_the_grid_has_the_pairs_that_these_thresholds_give():
    records = list(random_trees(0))
    report = report_of(records)
    for i, visits in enumerate(report["min_visits"]):
        for j, v0 in enumerate(report["v0"]):
            for k, v1 in enumerate(report["v1"]):
                settings = StepPairSettings(v0=v0, v1=v1, min_visits=visits)
                expected = sum(len(sibling_pairs(record, settings)[0]) for record in records)
                assert report["pairs"][i][j][k] == expected
                assert (report["right"][i][j][k] is None) == (expected == 0)
    assert 0.5 in report["v0"] and 0.5 in report["v1"] and 3 in report["min_visits"]
    assert report["set"]["pairs"] > 0 and len(report["v0"]) > 3


def test_noise_and_the_expected_share_of_right_directions_are_those_worked_out_by_hand():
    # Node 1: rollouts of its own 1 and its children's 3 (terminal, visited twice) and -1.
    record = make_record(
        (0, 1.5, 4, False), (0, 0.0, 1, False), (1, 3.0, 2, True), (1, -1.0, 1, False)
    )
    report = report_of([record], (0.0, -9.0, 1))
    # Three evaluations below node 1 (the terminal counts once): mean 1, squares 0 + 4 + 4.
    assert report["noise"] == pytest.approx(math.sqrt(8 / 2))
    errors = [2 * math.sqrt(1 / 3 + 1), 2 * math.sqrt(1 + 1)]  # of nodes 1 and 2, of 3 and 4
    right = [NormalDist().cdf(gap / error) for gap, error in zip((1.5, 4), errors, strict=True)]
    assert report["set"]["pairs"] == report["candidates"] == 2
    assert report["set"]["right"] == pytest.approx(sum(right) / 2)


def test_the_expected_share_is_about_the_share_that_is_right_on_rollouts_of_known_means():
    rng = random.Random(1)
    records, right = [], []
    for number in range(400):
        means = [rng.gauss(0, 1), rng.gauss(0, 1)]
        nodes = []
        for place, mean in enumerate(means):
            rewards = [rng.gauss(mean, 1) for _ in range(4)]
            # A chain of nodes, each with one rollout: its value is the mean from there down.
            top = len(nodes) + 1
            for at in range(4):
                below = rewards[at:]
                parent = 0 if at == 0 else top + at - 1
                nodes.append((parent, sum(below) / len(below), len(below), False))
            means[place] = (mean, nodes[top - 1][1])
        records.append(make_record(*nodes, id=f"t{number}"))
        right.append((means[0][0] > means[1][0]) == (means[0][1] > means[1][1]))
    report = report_of(records, (0.0, -9.0, 1))
    assert report["noise"] == pytest.approx(1, abs=0.05)
    assert report["set"]["pairs"] == 400
    assert report["set"]["right"] == pytest.approx(sum(right) / 400, abs=0.05)


def test_thresholds_are_proposed_by_the_stated_rule():
    report = report_of(random_trees(3), min_pairs=5, min_right=0.8)
    proposed = report["proposed"]
    assert proposed["pairs"] >= 5 and proposed["v1"] == 0.5 and proposed["right"] >= 0.8
    k = report["v1"].index(0.5)
    for i in range(len(report["min_visits"])):
        for j in range(len(report["v0"])):
            pairs, right = report["pairs"][i][j][k], report["right"][i][j][k]
            assert not (pairs > proposed["pairs"] and right >= 0.8)
    # Nothing is so sure: the largest share of what leaves enough pairs.
    few = report_of(random_trees(3), min_pairs=20, min_right=1.0)
    cells = [
        (right, pairs)
        for a, b in zip(few["right"], few["pairs"], strict=True)
        for c, d in zip(a, b, strict=True)
        for right, pairs in zip(c, d, strict=True)
        if pairs >= 20
    ]
    assert few["proposed"]["right"] == max(cells)[0]
    # Nor are there so many: all that can be had.
    none = report_of(random_trees(3), min_pairs=10**6)
    assert none["proposed"]["pairs"] == max(max(max(row) for row in cube) for cube in none["pairs"])


def test_trees_without_any_gap_have_a_report_that_proposes_nothing():
    report = report_of([make_record((0, 1.0, 9, False), (0, 1.0, 9, False))])
    assert report["proposed"] is None and report["candidates"] == 0
    assert format_proposal(report, "pairs").endswith("; no thresholds give any")
    assert "0.5" in format_report(report)


def test_a_report_is_read_from_the_folder_of_its_stage(tmp_path):
    assert read_report(tmp_path, "pairs1") == ""
    report = report_of(random_trees(3), min_pairs=5)
    write_json(tmp_path / "report.json", report)
    shown = read_report(tmp_path, "pairs1")
    assert "min_visits 4" in shown and "--config.pairs1.v0=" in shown
    counts = Counter(shown.split())
    assert counts["pairs"] >= 3
    write_json(tmp_path / "report.json", {"pairs": 3})
    with pytest.raises(UserError, match=r"report\.json is damaged"):
        read_report(tmp_path, "pairs1")
