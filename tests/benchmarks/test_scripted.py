"""The scripted engine: a search reads what it says, and grows the same trees whatever runs it."""

import pytest

from benchmarks.options import below
from benchmarks.script import judge_template, scripted_prompts
from benchmarks.scripted import OutOfTime, OverlayEngine, instant_engine
from stair_jax.decoding.engine import Engine
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.runner import run_search
from stair_jax.search.search_context import SamplingSettings
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree import SearchConfig
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.text import steps


def grow(script, engine, trees_in_flight=3, reuse=False):
    """The records of three trees, by prompt, without what may differ."""
    template = judge_template(script, 20)
    settings = SearchSettings(
        tree=SearchConfig(num_iterations=12),
        sampling=SamplingSettings(
            max_step_tokens=40, max_answer_tokens=120, reuse_rollout_step=reuse
        ),
        judge=JudgeSettings(
            mode="generative",
            helpfulness_template=template,
            safety_template=template,
            fence=False,  # a prompt and a reply of scripted lengths, and nothing else
            ask_closing=False,
            max_tokens=40,
        ),
    )
    trees = []
    run_search(
        list(scripted_prompts(script, 3, 10)),
        engine,
        script.tokenizer,
        settings,
        0,
        trees.append,
        reward=SafetyReward(),
        trees_in_flight=trees_in_flight,
    )
    return {tree.id: tree for tree in trees}


def shape(tree):
    """A tree without its priors, which the model gives."""
    nodes = [(n.parent, n.tokens, n.visits, n.value, n.terminal) for n in tree.nodes]
    return nodes, tree.counts, tree.generated_tokens


@pytest.fixture(scope="module")
def instant(script):
    return grow(script, OverlayEngine(instant_engine(), script))


def test_a_search_can_read_the_script(script, instant):
    assert len(instant) == 3
    depths = set()
    for tree in instant.values():
        assert tree.counts["judged"] > 5
        assert tree.counts.get("unreadable", 0) == 0
        assert tree.counts.get("malformed", 0) == tree.nodes[0].missing
        depths |= {node.depth for node in tree.nodes if node.terminal}
        for node in tree.nodes[1:]:
            assert 10 <= len(node.tokens) <= 32
            assert node.terminal == (steps.OUTPUT_CLOSE in node.text)
            assert script.tokenizer.encode_answer(node.text) == list(node.tokens)
    assert len(depths) > 1 and 1 not in depths


@pytest.mark.parametrize("reuse", [False, True])
def test_nothing_is_left_of_a_search(script, reuse):
    engine = instant_engine()
    scripted = OverlayEngine(engine, script)
    trees = grow(script, scripted, reuse=reuse)
    assert not engine.handles and not scripted._closings and not scripted._asked
    assert sum(tree.generated_tokens for tree in trees.values()) == scripted.work.tokens
    assert scripted.work.tokens == engine.stats.generated
    assert scripted.work.seen > 10 * scripted.work.tokens


def test_trees_do_not_depend_on_their_company(script, instant):
    alone = grow(script, OverlayEngine(instant_engine(), script), trees_in_flight=1)
    assert {id: shape(tree) for id, tree in alone.items()} == {
        id: shape(tree) for id, tree in instant.items()
    }


@pytest.fixture(scope="module")
def engine(script):
    """A real one, of few slots and a cache that is too small for all."""
    return Engine(
        *tiny_model(script.tokenizer.vocab_size, num_hidden_layers=1),
        num_slots=4,
        max_length=256,
        cache_tokens=1024,
        prefill_rows=4,
    )


def test_a_model_grows_the_trees_that_the_script_says(script, instant, engine):
    scripted = OverlayEngine(engine, script)
    trees = grow(script, scripted)
    assert {id: shape(tree) for id, tree in trees.items()} == {
        id: shape(tree) for id, tree in instant.items()
    }
    assert not engine.pending and not engine._handles
    assert engine.stats.generated == scripted.work.tokens


def test_a_search_that_is_stopped_leaves_an_idle_engine(script, engine):
    looks = iter(range(10**6))
    scripted = OverlayEngine(engine, script, is_over=lambda: next(looks) > 20)
    with pytest.raises(OutOfTime):
        grow(script, scripted)
    assert not engine.pending and not engine._handles
    assert engine.free == engine.capacity


def test_values_are_the_means_of_the_judgements_below(instant):
    for tree in instant.values():
        found = below(tree, lambda entry: entry["reward"])
        assert found == pytest.approx([node.value for node in tree.nodes])
