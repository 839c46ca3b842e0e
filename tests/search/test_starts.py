"""Searches behind a start: the tree, its pairs, and its SFT examples."""

import json
import random

import pytest

from stair_jax.data.records import Prompt
from stair_jax.errors import UserError
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.pair_candidates import Candidates
from stair_jax.search.preference_pairs import (
    PrmPairSettings,
    StepPairSettings,
    prm_pairs,
    sibling_pairs,
    trajectory_pairs,
)
from stair_jax.search.runner import run_search
from stair_jax.search.settings import SearchSettings
from stair_jax.search.sft_answers import SftAnswerSettings, sft_answers
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import build
from stair_jax.text.chat import encode_prompt
from stair_jax.text.steps import (
    FINAL_PREFIX,
    OUTPUT_OPEN,
    REASONING_OPEN,
    final_answer,
    format_output,
    format_step,
    is_well_formed,
)

STEP = format_step("Plan", "Go along.")
OPEN_STEP = f"{REASONING_OPEN}Title: Plan\nSure,"
OPEN_OUTPUT = f"\n\n{OUTPUT_OPEN}{FINAL_PREFIX} Sure,"
STARTS = {"step": (STEP,), "open": (OPEN_STEP,), "output": (STEP, OPEN_OUTPUT)}
ALL = StepPairSettings(v0=0.0, v1=-3.0, min_visits=1)


def search(tokenizer, engine, *prompts, **section):
    """Runs a search; returns (trees by id, without their seconds; report)."""
    sizes = {
        "num_iterations": 24,
        "num_children": 3,
        "max_depth": 3,
        "c": 9.0,
        **section.pop("tree", {}),
    }
    whole = {
        "tree": sizes,
        "sampling": {"max_step_tokens": 60, "max_answer_tokens": 300},
        "judge": {"mode": "expected"},
        **section,
    }
    trees = {}

    def on_tree(record):
        row = json.loads(json.dumps(record.to_dict() | {"seconds": 0.0}))
        trees[record.id] = TreeRecord.from_dict(row)

    settings = build(SearchSettings, whole, "search")
    report = run_search(
        prompts, engine, tokenizer, settings, 3, on_tree, reward=SafetyReward(), trees_in_flight=4
    )
    assert not engine.handles, "every handle is given back"
    return trees, report


def prompt(start, id="p"):
    return Prompt(id, "question?", "safety", "test", start=start)


@pytest.fixture
def continuing(make_engine, tokenizer):
    """An engine that goes on with what is open at the end of a start."""
    engine = make_engine()
    write = engine.replies._write

    def reply(request, text):
        if "judge" in request.id or not text.endswith("Sure,"):
            return None
        own = format(sum(request.key) % 5)
        if OUTPUT_OPEN in text:
            return f" {own}" + format_output("").removeprefix(f"{OUTPUT_OPEN}{FINAL_PREFIX} ")
        step = f" {own}" + format_step("", "").partition("\n")[2]
        if tokenizer.tags.reasoning_close in request.sampling.stop_ids:
            return step
        return step + write(random.Random(sum(request.key)), False)

    engine.replies.reply = reply
    return engine


@pytest.mark.parametrize("name", STARTS)
def test_a_tree_is_searched_behind_its_start(tokenizer, continuing, name):
    start = STARTS[name]
    trees, _ = search(tokenizer, continuing, prompt(start))
    tree = trees["p"]
    given = [token for text in start for token in tokenizer.encode_answer(text)]
    asked = encode_prompt(tokenizer, "question?")
    assert tree.start == start and tree.start_tokens == len(given)
    assert list(tree.nodes[0].tokens) == [*asked, *given]
    assert tree.nodes[0].depth == 0 and not tree.nodes[0].text
    terminals = [i for i, node in enumerate(tree.nodes) if node.terminal]
    assert len(terminals) > 1
    for index in terminals:
        text = "".join(tree.answer_texts(tree.path(index)))
        assert is_well_formed(text)
        (entry,) = tree.nodes[index].judgements
        assert entry["answer"] == final_answer(text)
        assert entry["reward"] is not None
        own = tree.answer_tokens(tree.path(index))
        assert tokenizer.decode(own) == text
        assert (*asked, *own) == tuple(tree.tokens([0, *tree.path(index)]))


@pytest.mark.parametrize(("name", "deepest"), [("step", 2), ("open", 3), ("output", 1)])
@pytest.mark.parametrize("more", [{}, {"in_flight": 3}])
def test_the_depth_of_a_tree_counts_the_finished_steps_of_its_start(
    tokenizer, continuing, name, deepest, more
):
    continuing.replies.p_end = 0.1
    prompts = [prompt(STARTS[name], f"p{number}") for number in range(4)]
    trees, _ = search(tokenizer, continuing, *prompts, tree=more)
    assert max(node.depth for tree in trees.values() for node in tree.nodes) == deepest
    assert all(tree.iterations == 24 for tree in trees.values())


@pytest.mark.parametrize("options", [{}, {"share_rollouts": True, "resample": 2}])
def test_trees_with_and_without_a_start_leave_each_other_alone(tokenizer, make_engine, options):
    prompts = [prompt(None, "a"), prompt((STEP,), "b"), prompt(None, "c")]
    together, _ = search(tokenizer, make_engine(disorder=1), *prompts, more_pairs=options)
    plain, _ = search(tokenizer, make_engine(), prompts[0], prompts[2], more_pairs=options)
    assert {name: together[name] for name in "ac"} == plain
    assert "start" not in together["a"].to_dict()
    alone, _ = search(tokenizer, make_engine(), prompts[1], more_pairs=options)
    assert together["b"] == alone["b"]


@pytest.mark.parametrize(
    ("start", "section", "reason"),
    [
        ((STEP,), {"tree": {"max_depth": 1}}, "its start has max_depth steps"),
        (
            (STEP,),
            {"sampling": {"max_step_tokens": 9, "max_answer_tokens": 10}},
            "its start leaves no room in max_answer_tokens",
        ),
    ],
)
def test_a_start_that_leaves_nothing_to_search_is_left_out(
    tokenizer, make_engine, start, section, reason
):
    trees, report = search(tokenizer, make_engine(), prompt(start), prompt(None, "q"), **section)
    assert list(trees) == ["q"] and report.skipped == [("p", reason)]


@pytest.fixture
def tree(tokenizer, make_engine):
    trees, _ = search(tokenizer, make_engine(p_end=0.2), prompt((STEP,)))
    assert max(node.depth for node in trees["p"].nodes) == 2
    return trees["p"]


def test_paths_of_pairs_begin_with_the_start(tokenizer, tree):
    given = tuple(tokenizer.encode_answer(STEP))
    pairs, _ = sibling_pairs(tree, ALL)
    assert len(pairs) > 3
    for pair in pairs:
        better, worse = (int(end) for end in pair.id.rsplit(":", 2)[1:])
        above = tree.path(tree.nodes[better].parent)
        assert pair.start == (STEP,) and pair.path == (STEP, *tree.texts(above))
        assert pair.path_tokens == (*given, *tree.tokens(above))
        assert pair.depth == 1 + tree.nodes[better].depth
        assert pair.rejected_tokens == tree.nodes[worse].tokens
    full, _ = trajectory_pairs(tree, ALL)
    assert full and all(pair.path == (STEP,) and pair.path_tokens == given for pair in full)
    assert all(not pair.chosen.startswith(STEP) for pair in full)
    paths, _ = prm_pairs(tree, PrmPairSettings(v0=0.0))
    assert paths
    for pair in paths:
        for texts, tokens in (
            (pair.chosen_path, pair.chosen_tokens),
            (pair.rejected_path, pair.rejected_tokens),
        ):
            assert texts[0] == STEP and tokens[: len(given)] == given
            assert tokenizer.decode(tokens) == "".join(texts)


def test_an_answer_in_an_output_that_the_start_opened_is_no_malformed_one(tokenizer, continuing):
    trees, _ = search(tokenizer, continuing, prompt(STARTS["output"]))
    candidates = Candidates(trees["p"], 4096)
    reasons = candidates.left_out(*candidates.siblings(), 0.0, -3.0, 1)
    assert len(candidates.terminals) > 1 and not reasons["malformed"].any()


@pytest.mark.parametrize("name", STARTS)
def test_sft_examples_hold_the_start_apart(tokenizer, continuing, name):
    trees, _ = search(tokenizer, continuing, prompt(STARTS[name]))
    rows, counts = sft_answers(trees["p"], SftAnswerSettings(v1=-3.0, max_per_prompt=0))
    assert len(rows) == counts["answers"] > 0 and not counts["malformed"]
    for row in rows:
        node = int(row.id.split(":")[1])
        assert row.start == STARTS[name] and is_well_formed(row.whole_answer)
        assert row.answer == "".join(trees["p"].texts(trees["p"].path(node)))


def test_a_tree_whose_start_is_damaged_is_refused(tree):
    data = json.loads(json.dumps(tree.to_dict()))
    for change in ({"start": [3]}, {"start": [STEP + format_output("x")]}, {"start_tokens": 10**6}):
        with pytest.raises(UserError, match="start"):
            TreeRecord.from_dict(data | change)
    without = data | {"nodes": [node | {"tokens": None} for node in data["nodes"]]}
    pairs, _ = sibling_pairs(TreeRecord.from_dict(without), ALL)
    assert pairs and all(pair.path_tokens is None and pair.path[0] == STEP for pair in pairs)
