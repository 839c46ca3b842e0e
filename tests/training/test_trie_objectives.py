"""Losses over tries equal those over separate sequences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.data.packing import Example
from stair_jax.models.transformer import apply
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batches, Group
from stair_jax.training.forward_pass import for_each_group, sequence_logps
from stair_jax.training.objectives import DpoObjective
from stair_jax.training.step import micro_at
from stair_jax.training.trie_batches import TrieBatches

LONGEST, ROW = 16, 48


def pair(name, path, chosen, rejected):
    """A pair of steps after a path, with arbitrary reference log-probs."""
    sides = tuple(
        Example([*path, *step], [0] * len(path) + [1] * len(step), name)
        for step in (chosen, rejected)
    )
    return Group(name, sides, {"ref_chosen": -3.0 - len(path), "ref_rejected": -7.5})


@pytest.fixture(scope="module")
def groups():
    """(pairs of two search trees and an unrelated pair, interleaved; their prompts)."""
    rng = np.random.default_rng(3)
    prompts = {name: rng.integers(1, 40, 5).tolist() for name in "abc"}
    first = {name: rng.integers(1, 40, 3).tolist() for name in "ab"}
    second = rng.integers(1, 40, 4).tolist()
    a, b, c = (prompts[name] for name in "abc")
    found = [
        pair("a1", a, first["a"], [*first["a"][:2], 7]),  # differs in the last token only
        pair("b1", b, first["b"], first["b"][:2]),  # one side is a prefix of the other
        pair("a2", [*a, *first["a"]], second, [*second[:1], 8, 9, 10]),  # a1's choice in path
        pair("c1", c, [*range(2, 13)], [*range(20, 29)]),
        pair("a3", [*a, *first["a"], *second], [11, 12], [13]),
        pair("a4", a, [20, 21], first["a"]),  # rejected here, chosen in a1
        pair("b2", [*b, *first["b"]], [0, 0], [0]),  # token id 0 is not padding
    ]
    return found, [group.id[0] for group in found]


@functools.partial(jax.jit, static_argnums=0)
def log_softmax(config, params, tokens):
    hidden = apply(config, params, tokens[None], jnp.arange(len(tokens))[None])[0]
    return jax.nn.log_softmax(hidden @ params["embedding"].T)


def alone(config, params, groups):
    """Log-probs [N, 2] summed over the counted tokens of each side, one sequence per row."""

    def logp(example):
        tokens = np.zeros(LONGEST, np.int32)
        tokens[: len(example)] = example.tokens
        logps = np.asarray(log_softmax(config, params, tokens), np.float64)
        places = np.flatnonzero(example.loss_mask)
        return sum(logps[place - 1, example.tokens[place]] for place in places)

    return np.array([[logp(side) for side in group.examples] for group in groups])


@pytest.mark.parametrize(
    ("rows", "length", "num_chunks", "shape"),
    [(2, ROW, 1, (1, 1, 1)), (3, 20, 3, (1, 1, 1)), (4, 24, 3, (2, 2, 1))],
    ids=["whole", "cut", "mesh"],
)
def test_log_probabilities_are_those_of_separate_sequences(
    config, params, groups, rows, length, num_chunks, shape
):
    batches = TrieBatches(*groups, 7, length, rows, LONGEST)
    if length == ROW:
        (micro,) = batches[0].members
        assert len(micro) == 7 and batches[0].arrays["micro"]["segment_ids"].max() == 2
    mesh = make_mesh(MeshShape(*shape))
    params = jax.device_put(params, rules.replicated(mesh))
    function = functools.partial(sequence_logps, config, num_chunks, params)
    found = for_each_group(function, batches, mesh)
    np.testing.assert_allclose(found, alone(config, params, groups[0]), rtol=1e-5, atol=1e-5)


def summed(objective, params, batches):
    """(sums, gradients) over the micro-batches of the only batch."""
    (batch,) = batches

    @jax.jit
    def value_and_grad(params, micro):
        def loss(params):
            sums = objective(params, micro)
            return sums.loss, sums

        return jax.value_and_grad(loss, has_aux=True)(params)

    parts = [
        value_and_grad(params, micro_at(batch.arrays["micro"], index))
        for index in range(int(batch.arrays["count"]))
    ]
    (_, sums), gradients = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    return jax.device_get((sums, gradients))


def assert_close(found, expected):
    sums, gradients = found
    for name, value in expected[0].metrics.items():
        np.testing.assert_allclose(sums.metrics[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
    assert sums.weight == expected[0].weight
    np.testing.assert_allclose(sums.loss, expected[0].loss, rtol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (gradients, expected[1])), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * abs(theirs).max())


def test_sums_and_gradients_are_those_of_separate_sequences(config, params, groups):
    objective = DpoObjective(config, beta=0.3, sft_weight=0.2)
    expected = summed(objective, params, Batches(groups[0], 7, LONGEST, 14))
    # Short rows: some tries hold several pairs, and some pairs are laid out as two tries.
    trees = TrieBatches(*groups, 7, LONGEST, 3, LONGEST)
    kinds = {(len(b.members) > 1, len(b.tries)) for block in trees._blocks(0) for b in block}
    assert kinds == {(True, 1), (False, 2)} and int(trees[0].arrays["count"]) > 1
    assert_close(summed(objective, params, trees), expected)
    logps = alone(config, params, groups[0])[:, 0]
    lost = [
        (group.values["ref_chosen"] - logp) / sum(group.examples[0].loss_mask)
        for group, logp in zip(groups[0], logps, strict=True)
    ]
    assert expected[0].metrics["kl_chosen"] == pytest.approx(sum(lost), rel=1e-4)


def test_the_shards_of_a_tree_batch(groups):
    """Arrays with rows are split over the devices; `runs` is replicated."""
    mesh = make_mesh(MeshShape(2, 2, 1))
    micro = put_batch(TrieBatches(*groups, 7, 24, 4, LONGEST)[0].arrays, mesh)["micro"]
    for name in ("tokens", "ends", "node_ids", "weights"):
        assert micro[name].sharding.shard_shape(micro[name].shape)[1:] == (1, 24), name
    assert micro["runs"].ndim == 4 and micro["runs"].sharding.is_fully_replicated
