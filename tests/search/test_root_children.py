"""More children at the root than elsewhere."""

from collections import Counter

import pytest

from stair_jax.data.records import Prompt
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.runner import run_search
from stair_jax.search.settings import SearchSettings
from stair_jax.settings import build
from stair_jax.stages import Search

PROMPTS = [Prompt(f"p{i}", f"question {i}?", "helpfulness", "test") for i in range(6)]


def search(tokenizer, engine, more_pairs=None, **tree):
    """The trees by id, without what the clock says."""
    section = {
        "tree": {"num_iterations": 24, "num_children": 2, "max_depth": 3, **tree},
        "sampling": {"max_step_tokens": 60, "max_answer_tokens": 300},
        "judge": {"mode": "expected"},
        "more_pairs": more_pairs or {},
    }
    settings = build(SearchSettings, section, "search")
    trees = {}

    def on_tree(record):
        trees[record.id] = record.to_dict() | {"seconds": 0.0}

    run_search(
        PROMPTS, engine, tokenizer, settings, 3, on_tree, reward=SafetyReward(), trees_in_flight=4
    )
    assert not engine.handles, "every handle is given back"
    return trees


@pytest.mark.parametrize("more_pairs", [{}, {"share_rollouts": True}, {"resample": 2}])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_the_root_alone_gets_more_children(tokenizer, make_engine, more_pairs, in_flight):
    engine = make_engine(disorder=1, p_end=0.2)
    options = {"root_children": 5, "in_flight": in_flight}
    trees = search(tokenizer, engine, more_pairs, **options)
    children = [Counter(n["parent"] for n in t["nodes"] if n["depth"]) for t in trees.values()]
    assert max(counts.pop(0) for counts in children) > 3
    assert max(max(counts.values()) for counts in children) == 2
    asked = Counter(request.sequence for request in engine.seen if "step" in request.id)
    roots = {tuple(tree["nodes"][0]["tokens"]) for tree in trees.values()}
    if not more_pairs:
        assert {asked[root] for root in roots} == {5}
        assert {asked[place] for place in asked.keys() - roots} == {2}
    again = search(tokenizer, make_engine(p_end=0.2), more_pairs, **options)
    assert again == trees


def test_as_many_children_of_the_root_as_of_any_node_change_nothing(tokenizer, make_engine):
    plain = search(tokenizer, make_engine())
    assert search(tokenizer, make_engine(), root_children=2) == plain
    assert search(tokenizer, make_engine(), root_children=3) != plain


def test_the_default_is_no_part_of_the_identity():
    made = build(Search, {"model": "m", "prompts": "p"}, "search")
    assert "root_children" not in made.identity()
    wide = build(Search, {"model": "m", "prompts": "p", "root_children": 8}, "search")
    assert wide.identity()["root_children"] == 8
