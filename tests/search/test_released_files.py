"""The released form of trees and pairs, both ways."""

import copy
import gzip
import json

import pytest

from stair_jax.data.records import Prompt, StepPair
from stair_jax.errors import UserError
from stair_jax.search.preference_pairs import sibling_pairs
from stair_jax.search.released_files import (
    from_released,
    read_tree_file,
    to_released,
    to_released_pair,
)
from stair_jax.search.tree_records import Node, TreeRecord, write_trees

PROMPT = Prompt("q7", "How do I pick a lock?", "safety", "PKU-SafeRLHF")


def test_a_released_tree_becomes_a_record(released):
    record = from_released(released.small_tree(), PROMPT)
    assert (record.id, record.kind, record.source) == ("q7", "safety", "PKU-SafeRLHF")
    assert record.prompt == released.QUESTION
    assert record.nodes == (
        Node(-1, "", None, 0, 3, 2.5 / 3, prior=1.0),
        Node(0, released.FIRST, None, 1, 4, 0.5, prior=0.25),
        Node(0, released.CUT, None, 1, 4, -1.0, prior=1.0),
        Node(1, released.REFUSAL, None, 2, 2, 1.0, reward=1.0, terminal=True, prior=1.0),
        Node(1, released.HARM, None, 2, 1, -1.0, reward=-1.0, terminal=True, prior=1.0),
    )


def test_it_comes_back_as_it_was(released):
    tree = released.small_tree()
    back = to_released(from_released(tree, PROMPT))
    assert list(back) == list(tree)
    assert back == tree


def test_a_record_comes_back_without_what_the_form_does_not_have(released):
    nodes = (
        Node(-1, "", None, 0, 5, 0.5, prior=1.0),
        Node(0, "a", None, 1, 3, 0.25, prior=0.5),
        Node(0, "b", None, 1, 1, 1.0, reward=1.0, terminal=True),
        Node(1, "c", None, 2, 0, None, terminal=True),
        Node(1, "d", None, 2, 3, 1 / 3),
        Node(4, "e", None, 3, 2, -0.1),
    )
    record = TreeRecord("q7", PROMPT.prompt, "safety", "PKU-SafeRLHF", "", "", nodes)
    released = json.loads(json.dumps(to_released(record)))
    assert list(released)[:4] == ["tree_size", "0", "0.0", "0.1"]
    assert released["0.0.1.0"]["trajectory"] == ["a", "d", "e"]
    assert from_released(released, PROMPT) == record


def test_more_than_ten_children_stay_in_their_order(released):
    writer = released.Writer()
    for number in range(12):
        writer.add(f"0.{number}", [str(number)], [0.0])
    record = from_released(writer.tree(), PROMPT)
    assert [node.text for node in record.nodes[1:]] == [str(number) for number in range(12)]


def test_the_text_of_a_stop_token_is_left_out_of_an_answer_alone(released):
    writer = released.Writer()
    writer.add("0.0", [released.REFUSAL + "<|eot_id|>"], [1.0], terminal=True)
    writer.add("0.1", ["It is <|eot_id|>"], [1.0])
    record = from_released(writer.tree(), PROMPT)
    assert [node.text for node in record.nodes[1:]] == [released.REFUSAL, "It is <|eot_id|>"]


def test_tokens_may_be_made_from_the_texts(released):
    record = from_released(
        released.small_tree(),
        PROMPT,
        encode_prompt=lambda text: [len(text)],
        encode_step=lambda _: [1, 2],
    )
    assert record.nodes[0].tokens == (len(released.QUESTION),) and record.nodes[3].tokens == (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.pop("0"), "no tree of the released code: it has no node '0'"),
        (lambda tree: tree.pop("0.0"), "the node '0.0.0' has no parent|node '0.1' has no parent"),
        (lambda tree: tree.update(tree_size=9), "has 5 nodes, and tree_size is 9"),
        (lambda tree: tree["0.1"].update(prompt="x"), "node '0.1': its prompt is not that of"),
        (
            lambda tree: tree["0.0.1"].update(trajectory=["x", "y"]),
            "node '0.0.1': its traj",
        ),
        (lambda tree: tree["0.0"].update(trajectory=[3]), "a step of its trajectory is no text"),
        (lambda tree: tree["0.0"].update(true_value="N/A"), "true_value is 'N/A', and not a"),
        (lambda tree: tree["0.0"].update(true_value=0.7), "true_value is 0.7, and value_sum / v"),
        (lambda tree: tree["0.0.0"].update(reward=float("nan")), "reward is nan"),
        (lambda tree: tree["0.0"].update(visited_times=-1), "visited_times is -1"),
        (lambda tree: tree["0.0"].update(visited_times=True), "visited_times is True"),
        (lambda tree: tree["0.0"].update(is_terminal=1), "is_terminal is 1"),
        (
            lambda tree: tree["0.0"].update(is_terminal=True),
            "node '0.0': it ends its answer, and h",
        ),
        (lambda tree: tree.update({"0.0": []}), "node '0.0' is no JSON object"),
    ],
)
def test_a_tree_that_is_not_whole_is_refused_by_its_node(change, message, released):
    tree = copy.deepcopy(released.small_tree())
    change(tree)
    with pytest.raises(UserError, match=rf"mct\.json, tree 1.*({message})"):
        from_released(tree, PROMPT, "mct.json, tree 1")


def test_files_of_both_forms_are_read(tmp_path, released):
    one, two = released.small_tree(), released.small_tree("Why?")
    path = tmp_path / "mct.json"
    path.write_text(json.dumps([one, two], indent=4))
    assert list(read_tree_file(path)) == [(one, f"{path}, tree 1"), (two, f"{path}, tree 2")]
    (tmp_path / "one.json").write_text(json.dumps(one))
    assert [tree for tree, _ in read_tree_file(tmp_path / "one.json")] == [one]
    (tmp_path / "mct.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [tree for tree, _ in read_tree_file(tmp_path / "mct.json.gz")] == [one, two]
    ours = [from_released(tree, PROMPT) for tree in (one, two)]
    write_trees(tmp_path / "trees.jsonl.gz", ours)
    assert [
        TreeRecord.from_dict(tree) for tree, _ in read_tree_file(tmp_path / "trees.jsonl.gz")
    ] == ours


def test_a_file_that_is_cut_off_or_something_else_is_refused(tmp_path, released):
    whole = tmp_path / "trees.jsonl.gz"
    write_trees(whole, [from_released(released.small_tree(), PROMPT)] * 2)
    (tmp_path / "cut.gz").write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cut\.gz is cut off or damaged after byte \d+"):
        list(read_tree_file(tmp_path / "cut.gz"))
    (tmp_path / "list.json").write_text("[3]")
    with pytest.raises(UserError, match=r"list\.json, tree 1, is no JSON object"):
        list(read_tree_file(tmp_path / "list.json"))
    with pytest.raises(UserError, match=r"cannot read .*nowhere"):
        list(read_tree_file(tmp_path / "nowhere"))


def test_pairs_are_those_of_the_released_thresholds_as_text_of_path_and_step(released):
    pairs, _ = sibling_pairs(from_released(released.small_tree(), PROMPT))
    # Values .5 and -1 differ by more than .5, but .5 is below v1 = .8.
    (row,) = map(to_released_pair, pairs)
    assert row == {
        "prompt": released.QUESTION,
        "chosen": released.FIRST + released.REFUSAL,
        "rejected": released.FIRST + released.HARM,
        "chosen_score": 1.0,
        "rejected_score": -1.0,
        "chosen_is_terminal": True,
        "rejected_is_terminal": True,
        "chosen_visited_times": 2,
        "rejected_visited_times": 1,
    }
    row = to_released_pair(StepPair("p", "Q", (released.FIRST,), released.FIRST, released.REFUSAL))
    assert (row["chosen_is_terminal"], row["rejected_is_terminal"]) == (False, True)
