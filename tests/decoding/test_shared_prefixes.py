"""An engine that reads shared pages once a group, against one that does not."""

import jax
import numpy as np
import pytest

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.parallel.rules import shardings
from stair_jax.testing.device_programs import wrapped_program

CONFIG = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.3,
)
PARAMS = init_params(CONFIG, jax.random.key(1))
SIZES = {
    "num_slots": 8, "max_length": 64, "page_size": 4, "prefill_rows": 4, "prefill_width": 8,
    "steps_per_call": 4,
}  # fmt: skip


def tokens(length, seed):
    return tuple(np.random.default_rng(seed).integers(0, CONFIG.vocab_size, length).tolist())


def tree(engine, steps=3):
    """A search in small: siblings of different lengths continue the first of those before.

    Beside them prompts that begin alike only by their tokens, and judgements of one template, which
    take over slots in the middle. All are greedy, so that they do not depend on a key.
    """
    found = {}

    def run(requests):
        completions = run_all(engine, requests)
        found.update({id: (c.tokens, c.logps, c.scores) for id, c in completions.items()})
        return completions

    def greedy(id, own, parent, length, keep=False):
        sampling = Sampling(temperature=0, max_tokens=length)
        return Request(id, own, parent, sampling=sampling, keep=keep)

    template, path = engine.keep(tokens(14, 1)), engine.keep(tokens(9, 2))
    for depth in range(steps):
        own = [
            greedy((depth, "step", number), tokens(1 + number, 3), path, length, keep=True)
            for number, length in enumerate((6, 3, 9, 4))
        ]
        judged = [
            greedy((depth, "judge", number), tokens(2 + 3 * number, 10 + number), template, 5)
            for number in range(6)
        ]
        alone = [
            greedy((depth, "alone", number), tokens(9, 2) + tokens(3, number), None, 7)
            for number in range(2)
        ]
        scored = [Request((depth, "scored"), tokens(2, 4), path, score_ids=(1, 2))]
        path = run([*own, *judged, *alone, *scored])[depth, "step", 0].handle
    return found


def assert_alike(found, expected):
    """Equal greedy tokens, and log-probabilities within rounding."""
    assert found.keys() == expected.keys()
    for id, (sampled, logps, scores) in found.items():
        assert sampled == expected[id][0], id
        np.testing.assert_allclose(logps, expected[id][1], atol=1e-4)
        np.testing.assert_allclose(scores, expected[id][2], atol=1e-4)


@pytest.fixture(scope="module")
def expected():
    """Of an engine in which each slot reads its whole sequence."""
    return tree(Engine(CONFIG, PARAMS, **SIZES))


@pytest.mark.parametrize(
    ("least", "changes"),
    [(2, {}), (3, {"cache_tokens": 100}), (4, {"num_slots": 4, "steps_per_call": 3})],
    ids=["twos", "evicted handles", "more requests than slots"],
)
def test_greedy_tokens_are_those_without_groups(expected, least, changes):
    engine, groups = Engine(CONFIG, PARAMS, share_prefixes=least, **(SIZES | changes)), []

    def noted(program, *arguments):
        groups.append(np.asarray(arguments[-1]))
        return program(*arguments)

    with wrapped_program(engine, "decode", noted):
        found = tree(engine)
    assert_alike(found, expected)
    assert {array.shape for array in groups} == {
        (engine.device.engine_config.num_slots // least, 1 + max(least, 4))
    }
    counts = {int(np.sum(row[1:] < 8)) for array in groups for row in array if row[0]}
    # There were groups; which ones depends on when results are there.
    assert counts and min(counts) >= least
    assert bool(engine.stats.evicted) == ("cache_tokens" in changes)


def test_groups_on_a_mesh_are_those_of_each_shard(expected):
    mesh = make_mesh(MeshShape(2, 1, 2), jax.devices()[:4])
    config = fit_to_mesh(CONFIG, mesh, vocab_multiple=8)
    params = init_params(config, jax.random.key(1))
    params = jax.device_put(params, shardings(logical_axes(config), mesh))
    found = tree(Engine(config, params, mesh=mesh, share_prefixes=2, **SIZES), steps=1)
    assert_alike(found, {id: expected[id] for id in found})
