"""Samples of a tree: its best answer, and a judgement with what was replied."""

import dataclasses
from types import SimpleNamespace

from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.search.tree_samples import TreeSamples, add_reply, tree_samples


def entry(answer, reward, helpfulness=None, safety=None):
    return {"answer": answer, "reward": reward, "helpfulness": helpfulness, "safety": safety}


RECORD = TreeRecord(
    id="p1",
    prompt="why?",
    kind="safety",
    source="test",
    model="m",
    settings="s",
    nodes=(
        Node(-1, "", (1, 2), 0, 3, 0.25, judgements=[{"answer": "", "reward": None}]),
        Node(0, "a", (3,), 1, 2, 0.4, judgements=[entry("unread", None), entry("no", -0.5, 0, -1)]),
        Node(0, "b", (4,), 1, 1, 1.0, judgements=[entry("best", 1.0, 0.5, 1)]),
        Node(1, "c", (5,), 2, 1, 1.0, judgements=[entry("as good", 1.0)], missing=1),
    ),
)
REPLIES = {
    (2, 1): {"safety reply": "Conclusion: SAFE"},
    (1, 1): {"safety reply": "I think", "help reply": "4?"},
}


def test_the_best_answer_has_its_scores_and_the_value_of_the_tree():
    tree, _ = tree_samples(RECORD, REPLIES)
    assert tree.what == "tree"
    assert tree.texts == {"id": "p1", "prompt": "why?", "answer": "best"}
    assert tree.values == {
        "reward": 1.0,
        "helpfulness": 0.5,
        "safety": 1,
        "tree_value": 0.25,
        "nodes": 4,
        "visits": 3,
        "missing": 0,
    }


def test_samples_of_a_tree_with_a_start_show_it():
    started = dataclasses.replace(RECORD, start=("one", " two"), start_tokens=2)
    shown = [sample.texts for sample in tree_samples(started, REPLIES)]
    assert [texts["start"] for texts in shown] == ["one two"] * 2
    assert all("start" not in sample.texts for sample in tree_samples(RECORD, REPLIES))


def test_the_first_judged_answer_is_shown_with_all_replies_also_where_they_are_unreadable():
    _, judgement = tree_samples(RECORD, REPLIES)
    assert judgement.what == "judgement"
    assert judgement.texts == {
        "id": "p1",
        "prompt": "why?",
        "answer": "unread",
        "safety reply": "I think",
        "help reply": "4?",
    }
    assert judgement.values == {"reward": None, "helpfulness": None, "safety": None}


def test_a_tree_without_rewards_or_replies_has_no_such_samples():
    assert [sample.what for sample in tree_samples(RECORD, {})] == ["tree"]
    bare = dataclasses.replace(RECORD, nodes=RECORD.nodes[:1])
    assert tree_samples(bare, {}) == []


def test_replies_of_all_judges_are_kept_with_those_of_all_attempts():
    tokenizer = SimpleNamespace(decode=lambda ids: f"text of {list(ids)}")
    said = {}
    for question, completion in [
        ("policy safety", {"tokens": (1, 2), "scores": ()}),
        ("policy safety", {"tokens": (3,), "scores": ()}),
        ("policy safety", {"tokens": (), "scores": (-0.5, -1.25)}),
        ("policy safety", {"tokens": (), "scores": (-0.25, -1.5)}),
        ("endpoint safety", {"text": "from elsewhere"}),
        ("prm helpfulness", {"value": 0.125}),
        ("endpoint helpfulness", {"text": "", "finish": "missing"}),
    ]:
        add_reply(said, question, tokenizer, SimpleNamespace(**completion))
    assert said == {
        "policy safety reply": "text of [1, 2]\n---\ntext of [3]",
        "policy safety labels": "log p -0.250, log p -1.500",
        "endpoint safety reply": "from elsewhere",
        "prm helpfulness score": "0.125",
    }


def test_samples_are_taken_from_the_first_prompt_on():
    samples = TreeSamples(3, lambda samples: None)
    assert [place for place in range(8) if samples.wants(place)] == [0, 3, 6]
