"""Filters and limits of preference pairs beside the paper's thresholds."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.search.pair_candidates import NO_PAIRS, Candidates
from stair_jax.search.pair_filters import filtered, spread
from stair_jax.search.pair_report import make_report, tree_gaps
from stair_jax.search.preference_pairs import (
    StepPairSettings,
    left_out,
    sibling_pairs,
    trajectory_pairs,
)
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.stages import Preferences
from stair_jax.text.steps import format_output, format_step

GOOD, ANSWER = format_step("Think", "So."), format_output("4")
ALL = StepPairSettings(v0=0.0, v1=-9.0, min_visits=0)


def make_tree(*nodes):
    """A tree of (parent, value, terminal, text, number of tokens)."""
    made = [Node(-1, "", (1, 2), 0, 10, 0.0)]
    for parent, value, terminal, text, length in nodes:
        depth = made[parent].depth + 1
        made.append(Node(parent, text, (7,) * length, depth, 9, value, terminal=terminal))
    return TreeRecord("t", "why?", "safety", "s", "m", "c", tuple(made))


# root -> 1 -> 3, 4 (answers); root -> 2, 5. The rewards, of the answers, are -1 and 3.
TREE = make_tree(
    (0, 1.0, False, GOOD, 10),
    (0, 0.2, False, "babble", 4),
    (1, 3.0, True, ANSWER, 6),
    (1, -1.0, True, ANSWER, 2),
    (0, 2.1, False, GOOD, 9),
)


def ends(pairs):
    return [tuple(map(int, pair.id.split(":")[1:])) for pair in pairs]


def test_by_default_nothing_is_filtered_or_counted():
    pairs, counts = sibling_pairs(TREE, ALL)
    assert ends(pairs) == [(1, 2), (3, 4), (5, 1), (5, 2)]
    assert counts["pairs"] == 4 and not {"small_spread", "unequal_lengths"} & counts.keys()
    added = {"v0_share", "min_tree_spread", "well_formed", "length_gap", "max_pairs_per_depth"}
    assert not added & Preferences().identity().keys()


@pytest.mark.parametrize(
    ("settings", "kept", "reason", "count"),
    [
        # The spread is 4: gaps of 0.8, 4, 1.1 and 1.9 against 1 and against 4 itself.
        ({"v0_share": 0.25}, [(3, 4), (5, 1), (5, 2)], "small_share", 1),
        ({"v0_share": 0.99, "min_tree_spread": 4.0}, [(3, 4)], "small_share", 3),
        ({"min_tree_spread": 4.1}, [], "small_spread", 4),
        ({"well_formed": True}, [(3, 4), (5, 1)], "not_well_formed", 2),
        # Steps of 10, 4, 6, 2 and 9 tokens: ratios of 2.5, 3, 1.1 and 2.25.
        ({"length_gap": 2.5}, [(1, 2), (5, 1), (5, 2)], "unequal_lengths", 1),
        ({"length_gap": 1.0}, [], "unequal_lengths", 4),
    ],
)
def test_each_filter_by_hand(settings, kept, reason, count):
    pairs, counts = sibling_pairs(TREE, replace(ALL, **settings))
    assert ends(pairs) == kept and counts[reason] == count
    assert counts["pairs"] == len(kept) and reason in NO_PAIRS


def test_the_spread_is_that_of_all_rewards():
    entries = [{"answer": "a", "reward": reward} for reward in (5.0, None, 0.0)]
    nodes = [*TREE.nodes[:5], replace(TREE.nodes[5], judgements=entries)]
    assert spread(TREE) == 4.0
    assert spread(replace(TREE, nodes=tuple(nodes))) == 6.0  # from -1 to 5
    assert spread(make_tree((0, 1.0, False, GOOD, 1))) == 0.0


def test_whole_answers_are_compared_by_all_of_their_steps():
    # 16 and 12 tokens from the prompt on; the last steps alone have 6 and 2.
    assert ends(trajectory_pairs(TREE, replace(ALL, length_gap=1.5))[0]) == [(3, 4)]
    assert not trajectory_pairs(TREE, replace(ALL, length_gap=1.3))[0]
    assert ends(sibling_pairs(TREE, replace(ALL, length_gap=1.5))[0]) == [(5, 1)]


def test_a_step_below_babble_is_not_well_formed_either():
    tree = make_tree(
        (0, 1.0, False, "babble", 1),
        (1, 3.0, True, ANSWER, 1),
        (1, 1.0, True, ANSWER, 1),
    )
    assert ends(sibling_pairs(tree, ALL)[0]) == [(2, 3)]
    assert not sibling_pairs(tree, replace(ALL, well_formed=True))[0]


def test_trees_without_token_ids_are_compared_by_characters():
    nodes = tuple(replace(node, tokens=None) for node in TREE.nodes)
    tree = replace(TREE, nodes=nodes)
    ratio = len(GOOD) / len("babble")
    pairs = np.array([1]), np.array([2])
    for limit, is_out in ((ratio - 0.01, True), (ratio + 0.01, False)):
        found = filtered(tree, pairs, np.ones(1), StepPairSettings(length_gap=limit))
        assert found["unequal_lengths"].tolist() == [is_out]


def test_a_depth_keeps_its_largest_gaps():
    pairs, counts = sibling_pairs(TREE, replace(ALL, max_pairs_per_depth=2))
    assert ends(pairs) == [(3, 4), (5, 1), (5, 2)] and counts["limit"] == 1
    assert ends(sibling_pairs(TREE, replace(ALL, max_pairs_per_depth=1))[0]) == [(3, 4), (5, 2)]
    with pytest.raises(UserError, match="max_pairs_per_depth is a limit of steps"):
        Preferences(variant="trajectory", max_pairs_per_depth=1)
    with pytest.raises(UserError, match=r"length_gap is 0.5: it is the longer side by"):
        StepPairSettings(length_gap=0.5)


def test_the_report_counts_the_pairs_that_the_filters_leave():
    """So what it proposes gives as many pairs as it says."""
    settings = replace(ALL, v0_share=0.25)
    candidates = Candidates(TREE, settings.max_tokens)
    pairs = candidates.siblings()
    hits = filtered(TREE, pairs, candidates.gap(*pairs), settings)
    report = make_report([tree_gaps(TREE, candidates, pairs, hits)], (0.0, -9.0, 0))
    assert report["set"]["pairs"] == 3 == len(sibling_pairs(TREE, settings)[0])
    assert set(left_out(TREE, candidates, pairs, settings)) >= {"small_gap", "small_share"}


def test_sources_keep_as_many_pairs_spread_over_their_trees(monkeypatch, run_stage, tmp_path):
    trees = [
        replace(TREE, id=f"t{number}", source="ab"[number % 2], prompt=f"{number}?")
        for number in range(6)
    ]
    monkeypatch.setattr("stair_jax.stages.preferences.read_trees", lambda folder: trees)
    fields = {"v0": 0.0, "v1": -9.0, "min_visits": 0, "max_pairs_per_source": 6}
    folder = run_stage(Preferences, fields, tmp_path / "pairs", {"trees": tmp_path})
    prompts = Counter(
        line.split('"prompt": "')[1][0] for line in (folder / "dpo.jsonl").read_text().splitlines()
    )
    assert prompts == dict.fromkeys("012345", 2)
    assert '"limit": 12' in (folder / "counts.json").read_text()
