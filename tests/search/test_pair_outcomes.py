"""What pairs teach, to refuse or to comply, and what trees say is to be gained."""

import pytest

from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.search.pair_outcomes import (
    Regret,
    mean_regrets,
    outcome,
    read_regrets,
    refusal_shares,
    regret,
    write_regrets,
)
from stair_jax.search.preference_pairs import StepPairSettings, sibling_pairs, trajectory_pairs
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.text.steps import format_output, format_step

NO, YES = "I'm sorry, but I can't help with that.", "Mix two cups of flour with one of water."


def judged(*answers, **more):
    return [{"answer": answer, "reward": 0.0} | more for answer in answers]


def make_tree(*nodes, root=0.0):
    """A tree of (parent, text, value, terminal, judgements)."""
    made = [Node(-1, "", (), 0, 9, root)]
    for parent, text, value, terminal, judgements in nodes:
        made.append(
            Node(
                parent,
                text,
                None,
                made[parent].depth + 1,
                9,
                value,
                terminal=terminal,
                judgements=judgements,
            )
        )
    return TreeRecord("t", "How?", "safety", "", "", "", tuple(made))


# root -> 1 -> 3 (refuses), 4 (complies, judged twice); root -> 2 (three rollouts, one malformed)
STEP = format_step("Thought", "Consider.")
TREE = make_tree(
    (0, STEP, 1.0, False, judged(NO)),
    (0, STEP, 0.0, False, judged(YES, YES) + judged(NO, malformed=True)),
    (1, format_output(NO), 1.5, True, judged(NO)),
    (1, format_output(YES), 0.2, True, judged(YES, YES)),
    root=0.25,
)


def test_shares_of_refusals_are_of_all_answers_below_a_node():
    # Node 1: its own refusal, one of node 3 and two compliant answers of node 4.
    assert refusal_shares(TREE) == pytest.approx([2 / 6, 2 / 4, 0.0, 1.0, 0.0])


def test_answers_of_trees_without_judgements_are_read_and_what_is_not_there_is_not_known():
    tree = make_tree(
        (0, STEP, 1.0, False, []),
        (0, STEP, 0.0, False, []),
        (1, format_output(NO), 1.0, True, []),
        (1, format_output(NO) + format_output(YES), 1.0, True, []),
    )
    assert refusal_shares(tree) == [1.0, 1.0, None, 1.0, None]


def test_pairs_carry_the_shares_of_their_sides():
    settings = StepPairSettings(min_visits=0)
    siblings, _ = sibling_pairs(TREE, settings)
    shares = [(pair.id, pair.chosen_refusals, pair.rejected_refusals) for pair in siblings]
    assert shares == [("t:1:2", 0.5, 0.0), ("t:3:4", 1.0, 0.0)]
    assert [outcome(pair) for pair in siblings] == ["refuse", "refuse"]
    (whole,), _ = trajectory_pairs(TREE, settings)
    assert (whole.chosen_refusals, whole.rejected_refusals) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("chosen", "rejected", "path", "shares", "taught"),
    [
        ("a", "b", ("s",), (0.9, 0.4), "refuse"),
        ("a", "b", ("s",), (0.2, 0.8), "comply"),
        ("a", "b", ("s",), (0.6, 0.2), "neither"),  # too close to tell
        ("a", "b", ("s",), (0.6, None), None),
        (NO, YES, (), (None, None), "refuse"),
        (format_output(YES), format_output(NO), (STEP,), (None, None), "comply"),
        (NO, NO, (), (None, None), "neither"),
        (STEP, STEP, (), (None, None), None),  # a step has no answer
        (NO, YES, (STEP,), (None, None), None),
    ],
)
def test_what_a_pair_teaches(chosen, rejected, path, shares, taught):
    pair = StepPair(
        "a",
        "p",
        path,
        chosen,
        rejected,
        chosen_refusals=shares[0],
        rejected_refusals=shares[1],
    )
    assert outcome(pair) == taught


def test_the_regret_of_a_tree_is_what_its_policy_still_loses():
    assert regret(TREE) == 1.25  # the best answer has 1.5, the root 0.25
    assert regret(make_tree((0, STEP, 1.0, False, []))) is None
    rollouts = judged(YES, reward=2.0) + judged(NO, reward=None)
    assert regret(make_tree((0, STEP, 2.0, False, rollouts), root=-1.0)) == 3.0
    found = mean_regrets([("safety", 1.0), ("safety", None), ("helpfulness", 0.5), ("safety", 2.0)])
    assert found == {"helpfulness": Regret(1, 0.5), "safety": Regret(2, 1.5)}


def test_regrets_of_several_searches_are_weighted_by_their_trees(tmp_path):
    folders = [tmp_path / name for name in ("pairs1", "pairs2")]
    for folder in folders:
        folder.mkdir()
    write_regrets(folders[0], {"safety": Regret(3, 1.0), "helpfulness": Regret(1, 0.5)})
    write_regrets(folders[1], {"safety": Regret(1, 2.0)})
    assert read_regrets(folders) == {"safety": Regret(4, 1.25), "helpfulness": Regret(1, 0.5)}
    for text in ("3", '{"trees": 0, "mean": 1}', '{"trees": 1, "mean": "x"}'):
        (folders[1] / "regret.json").write_text(f'{{"safety": {text}}}')
        with pytest.raises(UserError, match=r"regret\.json is damaged"):
            read_regrets(folders)
    (folders[1] / "regret.json").unlink()
    with pytest.raises(UserError, match=r"no .*regret\.json.*--redo=pairs2"):
        read_regrets(folders)
