import itertools
import math
import random
from dataclasses import replace

import pytest

from stair_jax.errors import UserError
from stair_jax.search.preference_pairs import (
    PrmPairSettings,
    StepPairSettings,
    prm_pairs,
    sibling_pairs,
    thin,
    trajectory_pairs,
)
from stair_jax.search.tree_records import Node, TreeRecord


def make_record(*nodes, id="t"):
    """A record with nodes (parent, value, visits, terminal); the text of node i is "i"."""
    made = [Node(-1, "", (100, 101), 0, 10, 0.0)]
    for index, (parent, value, visits, terminal) in enumerate(nodes, start=1):
        made.append(
            Node(
                parent=parent,
                text=f"<{index}>",
                tokens=(index,) * index,
                depth=made[parent].depth + 1,
                visits=visits,
                value=value,
                reward=value if terminal else None,
                terminal=terminal,
            )
        )
    return TreeRecord(id, "why?", "safety", "s", "m", "c", tuple(made))


# root -> 1 (1.0), 2 (0.2), 3 (0.4, terminal); 1 -> 4 (1.5, terminal), 5 (0.9), 6 (missing)
TREE = make_record(
    (0, 1.0, 4, False),
    (0, 0.2, 5, False),
    (0, 0.4, 1, True),
    (1, 1.5, 1, True),
    (1, 0.9, 3, False),
    (1, None, 0, True),
)


def ends(pairs):
    return [tuple(map(int, pair.id.split(":")[1:])) for pair in pairs]


def test_sibling_pairs_and_the_reasons_against_the_others():
    pairs, counts = sibling_pairs(TREE, StepPairSettings())
    assert ends(pairs) == [(1, 2), (1, 3)]
    # 2-3: gap 0.2; 4-5: node 5 has 3 visits; two pairs hold node 6, which has no value.
    assert counts == {"pairs": 2, "small_gap": 1, "few_visits": 1, "no_value": 2} | dict.fromkeys(
        ("malformed", "too_long", "low_value"), 0
    )


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_no_pair(odd):
    tree = make_record((0, odd, 4, False), (0, 1.0, 4, False), (0, 0.2, 4, False))
    pairs, counts = sibling_pairs(tree, StepPairSettings())
    assert ends(pairs) == [(2, 3)] and counts["no_value"] == 2


def test_a_pair_tells_the_whole_story():
    (pair,), _ = sibling_pairs(TREE, StepPairSettings(min_visits=3, v1=1.2))
    assert pair.to_dict() == {
        "schema": 1,
        "id": "t:4:5",
        "prompt": "why?",
        "kind": "safety",
        "path": ["<1>"],
        "chosen": "<4>",
        "rejected": "<5>",
        "path_tokens": [1],
        "chosen_tokens": [4] * 4,
        "rejected_tokens": [5] * 5,
        "chosen_value": 1.5,
        "rejected_value": 0.9,
        "chosen_visits": 1,
        "rejected_visits": 3,
        "depth": 2,
        "chosen_terminal": True,
        "rejected_terminal": False,
        "chosen_refusals": 0.0,
    }


def test_pairs_of_trees_without_tokens_have_none_and_no_length():
    nodes = tuple(replace(node, tokens=None) for node in TREE.nodes)
    settings = StepPairSettings(max_tokens=1)
    pairs, counts = sibling_pairs(replace(TREE, nodes=nodes), settings)
    assert ends(pairs) == [(1, 2), (1, 3)] and counts["too_long"] == 0
    assert not {"chosen_tokens", "rejected_tokens"} & pairs[0].to_dict().keys()
    trajectories, _ = trajectory_pairs(replace(TREE, nodes=nodes), settings)
    paths, _ = prm_pairs(replace(TREE, nodes=nodes))
    assert {pair.chosen_tokens for pair in [*trajectories, *paths]} == {None}


def test_thresholds_are_strict_for_the_gap_and_inclusive_for_the_larger():
    record = make_record((0, 1.0, 4, False), (0, 0.5, 4, False))
    assert not sibling_pairs(record, StepPairSettings(v0=0.5))[0]
    assert sibling_pairs(record, StepPairSettings(v0=0.49, v1=1.0))[0]
    assert sibling_pairs(record, StepPairSettings(v0=0.49, v1=1.01))[1]["low_value"] == 1


def test_an_answer_with_a_second_output_block_is_not_preferred():
    record = make_record((0, 2.0, 1, True), (0, 1.0, 1, True), (0, -2.0, 1, True))
    texts = ("", "<|Output|>a<|/Output|><|Output|>b<|/Output|>", "<|Output|>c<|/Output|>", "")
    nodes = [replace(node, text=text) for node, text in zip(record.nodes, texts, strict=True)]
    record = replace(record, nodes=tuple(nodes))
    for pairs, counts in (sibling_pairs(record), trajectory_pairs(record), prm_pairs(record)):
        assert ends(pairs) == [(2, 3)] and counts["malformed"] == 2
    (pair,), _ = sibling_pairs(record)
    assert pair.chosen == "<|Output|>c<|/Output|>"


def test_length_counts_prompt_path_and_the_longer_side():
    longest = 2 + 1 + 5  # prompt, node 1, node 5
    settings = StepPairSettings(min_visits=0, max_tokens=longest)
    assert (4, 5) in ends(sibling_pairs(TREE, settings)[0])
    pairs, counts = sibling_pairs(TREE, StepPairSettings(min_visits=0, max_tokens=longest - 1))
    assert (4, 5) not in ends(pairs) and counts["too_long"] == 1


def test_limits_keep_the_largest_gaps():
    record = make_record(*[(0, value, 9, False) for value in (3.0, 1.0, 2.0, 0.0)])
    assert len(sibling_pairs(record, StepPairSettings())[0]) == 6
    pairs, counts = sibling_pairs(record, StepPairSettings(max_pairs_per_parent=3))
    assert ends(pairs) == [(1, 2), (1, 4), (3, 4)] and counts["limit"] == 3
    assert ends(sibling_pairs(record, StepPairSettings(max_pairs_per_tree=1))[0]) == [(1, 4)]


def test_trajectory_pairs_are_whole_answers():
    pairs, _ = trajectory_pairs(TREE, StepPairSettings())
    assert ends(pairs) == [(4, 3)]
    assert pairs[0].path == () and pairs[0].chosen == "<1><4>"
    assert pairs[0].chosen_tokens == (1, 4, 4, 4, 4) and pairs[0].rejected == "<3>"


def test_prm_pairs_are_of_one_depth_or_of_two_answers():
    record = make_record(
        (0, 1.0, 4, False),
        (0, 0.0, 4, False),
        (1, 2.0, 1, True),
        (2, 0.1, 2, False),
        (2, -1.0, 1, True),
        (4, 0.0, 1, True),
    )
    pairs, counts = prm_pairs(record, PrmPairSettings())
    steps = [pair for pair in pairs if pair.form == "step"]
    answers = [pair for pair in pairs if pair.form == "trajectory"]
    # 3 and 5 are both answers of depth 2: a pair of trajectories, once.
    assert ends(steps) == [(1, 2), (3, 4), (4, 5)]
    assert ends(answers) == [(3, 5), (3, 6), (6, 5)]
    assert steps[2].chosen_path == ("<2>", "<4>")
    assert steps[2].rejected_path == ("<2>", "<5>")
    assert steps[2].rejected_tokens == (2, 2, 5, 5, 5, 5, 5)
    assert counts["step_pairs"] == 3 and counts["trajectory_pairs"] == 3


def test_prm_limit_is_a_fixed_choice():
    record = make_record(*[(0, float(value), 9, False) for value in range(8)])
    every, _ = prm_pairs(record, PrmPairSettings())
    some, counts = prm_pairs(record, PrmPairSettings(max_pairs_per_tree=5))
    assert len(some) == 5 and counts["limit"] == len(every) - 5
    assert some == prm_pairs(record, PrmPairSettings(max_pairs_per_tree=5))[0]
    assert all(pair in every for pair in some)


def test_pairs_are_those_of_the_definition_on_random_trees():
    rng = random.Random(0)
    for _ in range(30):
        nodes = []
        for index in range(1, rng.randint(2, 25)):
            value = rng.choice([None, *(x / 4 for x in range(-8, 9))])
            visits = 0 if value is None else rng.randint(1, 8)
            nodes.append((rng.randrange(index), value, visits, rng.random() < 0.4))
        record = make_record(*nodes)
        settings = StepPairSettings(v0=rng.choice([0, 0.5]), v1=rng.choice([-9, 0.5]), min_visits=3)
        expected = set()
        for i, j in itertools.permutations(range(1, len(record.nodes)), 2):
            a, b = record.nodes[i], record.nodes[j]
            if a.parent == b.parent and a.value is not None and b.value is not None:
                enough = all(n.terminal or n.visits >= 3 for n in (a, b))
                if enough and a.value - b.value > settings.v0 and a.value >= settings.v1:
                    expected.add((i, j))
        pairs, counts = sibling_pairs(record, settings)
        assert ends(pairs) == sorted(expected)
        siblings = sum(len(c) * (len(c) - 1) // 2 for c in record.children())
        left_out = sum(count for reason, count in counts.items() if reason != "pairs")
        assert left_out + counts["pairs"] == siblings


def test_thin_keeps_an_even_spread():
    rows = [{"n": n} for n in range(10)]
    assert [row["n"] for row in thin(rows, 4)] == [0, 2, 5, 7]
    assert thin(rows, 10) == rows and thin(rows, 0) == []


@pytest.mark.parametrize("setting", [{"v0": -1}, {"min_visits": -1}, {"max_tokens": 0}])
def test_impossible_thresholds_are_refused(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        StepPairSettings(**setting)
