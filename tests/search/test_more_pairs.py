"""Options of a search for more pairs: what each changes, and that none leaves the rest alone."""

import itertools
import json
from collections import defaultdict

import pytest

from stair_jax.data.prompts import Prompt
from stair_jax.errors import UserError
from stair_jax.search.host_node import HostNode
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.more_pairs import MorePairs, final_visits
from stair_jax.search.runner import run_search
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree_records import TreeRecord
from stair_jax.search.tree_samples import TreeSamples
from stair_jax.settings import build

NUM_CHILDREN, MAX_DEPTH, ITERATIONS = 3, 3, 20
PROMPTS = [
    Prompt(f"p{i}", f"question {i}?", "safety" if i % 2 else "helpfulness", "test")
    for i in range(6)
]


def search(tokenizer, engine, in_flight=1, sampling=None, judge=None, samples=None, **more_pairs):
    """Runs a search; returns the trees by id, without `seconds`."""
    section = {
        "tree": {
            "num_iterations": ITERATIONS,
            "num_children": NUM_CHILDREN,
            "max_depth": MAX_DEPTH,
            "in_flight": in_flight,
        },
        "sampling": {"max_step_tokens": 60, "max_answer_tokens": 300, **(sampling or {})},
        "judge": {"mode": "expected", **(judge or {})},
        "more_pairs": more_pairs,
    }
    trees = {}

    def on_tree(record):
        trees[record.id] = json.loads(json.dumps(record.to_dict() | {"seconds": 0.0}))

    run_search(
        PROMPTS,
        engine,
        tokenizer,
        build(SearchSettings, section, "config.search"),
        3,
        on_tree,
        reward=SafetyReward(),
        trees_in_flight=4,
        samples=samples,
    )
    assert not engine.handles, "every handle is given back"
    return trees


def records(trees):
    return {id: TreeRecord.from_dict(tree) for id, tree in trees.items()}


OPTIONS = [
    {"resample": 3},
    {"share_rollouts": True},
    {"share_judgements": True},
    {"final_visits": "terminal"},
    {"final_visits": "siblings", "final_min_visits": 2},
    {"stop_after": 4, "stop_spread": 6.0},
    {"resample": 2, "share_rollouts": True, "final_visits": "siblings", "stop_after": 4},
]


@pytest.mark.parametrize(
    "neutral",
    [
        {"stop_after": 10**6, "stop_spread": 9.0},
        {"final_min_visits": 2, "stop_spread": 9.0},
    ],
)
def test_settings_that_say_what_the_default_does_give_the_same_trees(
    tokenizer, make_engine, neutral
):
    assert search(tokenizer, make_engine(), **neutral) == search(tokenizer, make_engine())


@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("options", OPTIONS)
def test_trees_depend_on_no_schedule(tokenizer, make_engine, options, in_flight):
    first = search(tokenizer, make_engine(disorder=1), in_flight, **options)
    assert first == search(tokenizer, make_engine(disorder=None), in_flight, **options)
    assert first != search(tokenizer, make_engine(), in_flight)


@pytest.mark.parametrize("limit", [1, 3])
def test_duplicates_are_sampled_again_up_to_the_bound(tokenizer, make_engine, limit):
    engine = make_engine()
    trees = records(search(tokenizer, engine, resample=limit))
    asked = defaultdict(dict)  # by sequence: its requests for steps, by number
    for request in engine.seen:
        if "step" in request.id:
            asked[request.sequence][request.id[-1]] = request
    expected = {}
    for place, requests in asked.items():
        samples = [tuple(engine.replies.write(requests[n])[0]) for n in sorted(requests)]
        taken, again = NUM_CHILDREN, 0
        while True:
            twice = taken - len(set(samples[:taken])) - again
            more = min(twice, limit - again)
            if more <= 0:
                break
            taken, again = taken + more, again + more
        assert len(samples) == taken
        expected[place] = list(dict.fromkeys(samples))
    assert any(len(requests) > NUM_CHILDREN for requests in asked.values())
    for record in trees.values():
        for node, children in enumerate(record.children()):
            if children:
                path = tuple(record.tokens([0, *record.path(node)]))
                assert [record.nodes[child].tokens for child in children] == expected[path]


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_shared_rollout_is_the_first_visit_of_the_children_that_it_passes(
    tokenizer, make_engine, in_flight
):
    engine = make_engine(p_end=0.25)
    trees = search(tokenizer, engine, in_flight, share_rollouts=True)
    rollouts = {
        request.sequence: tuple(engine.replies.write(request)[0])
        for request in engine.seen
        if "rollout" in request.id and request.id[-1] == 1
    }
    shared = 0
    for record in records(trees).values():
        for node, children in enumerate(record.children()):
            if not children:
                continue
            first, entry = children[0], record.nodes[node].judgements[0]
            assert record.nodes[first].judgements[0] == entry
            shared += 1
            # The rollout began at an ancestor, and goes on along the first children.
            path = record.tokens([0, *record.path(first)])
            starts = [n for n in range(len(path) + 1) if tuple(path[:n]) in rollouts]
            assert any(
                rollouts[tuple(path[:n])][: len(path) - n] == tuple(path[n:]) for n in starts
            )
            assert tuple(path) not in rollouts, "it is not rolled out from on its first visit"
    counted = sum(tree["counts"]["shared_rollouts"] for tree in trees.values())
    assert counted == shared > 0


def without_marks(tree):
    """A tree without what says of it that judgements were shared, and what that saved."""
    skipped = ("counts", "prefilled_tokens", "generated_tokens")
    own = {name: value for name, value in tree.items() if name not in skipped}
    for node in own["nodes"]:
        for entry in node["judgements"]:
            entry.pop("shared", None)
    return own


@pytest.mark.parametrize("in_flight", [1, 3])
def test_judgements_that_depend_on_the_answer_alone_are_the_same_when_they_are_shared(
    tokenizer, make_engine, in_flight
):
    # Without a fence the prompt of a judge has no mark, and labels are scored, not sampled.
    judge = {"fence": False}
    shared = search(tokenizer, make_engine(), in_flight, judge=judge, share_judgements=True)
    alone = search(tokenizer, make_engine(), in_flight, judge=judge)
    for id, tree in alone.items():
        assert without_marks(tree) == without_marks(shared[id])


@pytest.mark.parametrize("judge", [{}, {"mode": "generative", "attempts": 2}])
def test_equal_answers_of_a_tree_are_judged_once(tokenizer, make_engine, judge):
    engine = make_engine(disorder=2)
    engine.replies.reply = lambda request, text: (
        f"Conclusion: [{request.key[0] % 6}]" if request.id[-1] == "helpfulness" else None
    )
    trees = search(tokenizer, engine, 3, judge=judge, share_judgements=True)
    asked = {request.key for request in engine.seen if request.id[-1] == "helpfulness"}
    judged, shared, missing = 0, 0, 0
    for tree in trees.values():
        entries = [entry for node in tree["nodes"] for entry in node["judgements"]]
        entries = [entry for entry in entries if not entry.get("malformed")]
        for answer in {entry["answer"] for entry in entries}:
            alike = [entry for entry in entries if entry["answer"] == answer]
            assert all(entry == alike[0] for entry in alike)
            assert alike[0].get("shared", 1) == len(alike)
            judged, shared = judged + 1, shared + len(alike) - 1
            missing += alike[0]["reward"] is None
    counts = [tree["counts"] for tree in trees.values()]
    assert judged == sum(count["judged"] for count in counts)
    assert shared == sum(count.get("shared_judgements", 0) for count in counts) > 20
    assert judged <= len(asked) <= judged * judge.get("attempts", 1)
    assert bool(missing) == bool(judge), "what could not be read is missing for all"


def test_the_sample_of_a_judgement_does_not_depend_on_who_made_it(tokenizer, make_engine):
    def sampled(disorder):
        found = []
        options = {"judge": {"mode": "generative", "attempts": 1}, "share_judgements": True}
        search(tokenizer, make_engine(disorder), 3, samples=TreeSamples(1, found.extend), **options)
        return sorted(found, key=lambda sample: (sample.texts["id"], sample.what))

    assert sampled(0) == sampled(5)


def test_a_tree_whose_first_rewards_are_close_together_ends_there(tokenizer, make_engine):
    default = records(search(tokenizer, make_engine()))
    ended = 0
    # No two rewards are further apart than 6: a tree ends when it was given five.
    stopped = records(search(tokenizer, make_engine(), stop_after=5, stop_spread=6.0))
    for id, record in stopped.items():
        if record.iterations == ITERATIONS:
            assert record == default[id]
            continue
        ended += 1
        after = record.nodes[0].visits - record.iterations
        assert sum(len(node.judgements) for node in record.nodes) - after == 5
        assert all(node.judgements for node in record.nodes)
    assert ended > 1
    # In these trees the rewards are never all alike.
    for record in default.values():
        rewards = {entry["reward"] for node in record.nodes for entry in node.judgements}
        assert len(rewards) > 1
    assert records(search(tokenizer, make_engine(), stop_after=30)) == default


def host_nodes(*rows):
    """Nodes (parent, terminal, evaluations) behind a root that was evaluated once."""
    nodes = [HostNode(-1, (), (), (), "", evaluations=1)]
    return nodes + [
        HostNode(parent, (), (), (), "", terminal=terminal, evaluations=evaluations)
        for parent, terminal, evaluations in rows
    ]


def test_the_visits_after_the_budget_are_those_that_the_option_names():
    nodes = host_nodes(
        (0, False, 1), (0, False, 1), (0, True, 0), (0, False, 0), (1, False, 1), (1, False, 0)
    )
    visits = [12, 5, 2, 0, 0, 3, 0, 0, 0]
    assert final_visits(nodes, visits, MorePairs()) == [3, 4, 6]
    assert final_visits(nodes, visits, MorePairs(final_visits="terminal")) == [3]
    siblings = MorePairs(final_visits="siblings", final_min_visits=4)
    # Node 1 has 5 visits: nodes 2 and 4 get what they lack; nobody below it has 4.
    assert final_visits(nodes, visits, siblings) == [3, 2, 2, 4, 4, 4, 4]


def test_siblings_of_a_node_with_enough_visits_have_enough_in_the_end(tokenizer, make_engine):
    options = {"final_visits": "siblings", "final_min_visits": 3}
    default = records(search(tokenizer, make_engine()))
    compared = 0
    for id, record in records(search(tokenizer, make_engine(), **options)).items():
        assert [n.tokens for n in record.nodes] == [n.tokens for n in default[id].nodes]
        for children in record.children():
            open_ones = [record.nodes[c] for c in children if not record.nodes[c].terminal]
            for one, other in itertools.permutations(open_ones, 2):
                if one.visits > 3:
                    compared += 1
                    assert other.visits + other.missing >= 3
        for node in record.nodes:
            assert node.judgements or not node.terminal
    assert compared > 10


@pytest.mark.parametrize(
    "wrong",
    [{"resample": -1}, {"final_min_visits": 0}, {"final_visits": "none"}, {"stop_after": -1}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        build(MorePairs, wrong, "config.search.more_pairs")
