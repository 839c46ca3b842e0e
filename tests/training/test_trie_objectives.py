"""Losses over tries equal those over separate sequences."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.data.packing import SFT_ALONE, Example
from stair_jax.models.transformer import apply
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training import objectives
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


PROMPT = 5  # tokens of each prompt


def on_answers(groups):
    """The same pairs with paths that the SFT term counts too: all of the context but the prompt."""
    return [
        replace(group, examples=(replace(chosen, loss_mask=answer_mask(chosen)), rejected))
        for group in groups
        for chosen, rejected in [group.examples]
    ]


def answer_mask(example):
    counted = np.asarray(example.loss_mask)
    path = (np.arange(len(counted)) >= PROMPT) & (counted == 0)
    return np.where(path, SFT_ALONE, counted).tolist()


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


def test_the_sft_term_on_whole_answers_is_that_of_each_answer_alone(config, params, groups):
    """Both layouts; paths that several pairs share count once for each pair."""
    pairs = on_answers(groups[0])
    paths = [group.examples[0].loss_mask.count(SFT_ALONE) for group in pairs]
    assert max(paths) > 0 and min(paths) == 0
    objective = DpoObjective(config, beta=0.3, sft_weight=0.2, sft_on="answer")
    expected = summed(objective, params, Batches(pairs, 7, LONGEST, 14, sft_alone=True))
    for rows, length in ((2, ROW), (3, LONGEST)):
        tries = TrieBatches(pairs, groups[1], 7, length, rows, LONGEST, sft_alone=True)
        assert_close(summed(objective, params, tries), expected)
    answers = [
        replace(
            group,
            examples=tuple(
                replace(side, loss_mask=(np.arange(len(side)) >= PROMPT).astype(int).tolist())
                for side in group.examples
            ),
        )
        for group in groups[0]
    ]
    logps = alone(config, params, answers)[:, 0]
    lengths = [len(group.examples[0]) - PROMPT for group in groups[0]]
    assert expected[0].metrics["sft_loss"] == pytest.approx(-sum(logps / lengths), rel=1e-4)
    # All else is as with the SFT term on the step, and so are these batches without the path.
    on_steps = DpoObjective(config, beta=0.3, sft_weight=0.2)
    steps = summed(on_steps, params, Batches(pairs, 7, LONGEST, 14))
    for name in ("dpo_loss", "margin", "chosen_length", "kl_chosen"):
        assert expected[0].metrics[name] == pytest.approx(steps[0].metrics[name], rel=1e-5)
    tries = TrieBatches(pairs, groups[1], 7, ROW, 2, LONGEST)
    assert_close(summed(on_steps, params, tries), steps)
    assert expected[0].metrics["sft_loss"] != pytest.approx(steps[0].metrics["sft_loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("sft_on", "sft"),
    [("step", (3 + 5) / 2 + 6), ("answer", (1 + 2 + 3 + 5) / 4 + (1 + 2 + 6) / 3)],
)
def test_the_terms_by_hand(config, monkeypatch, sft_on, sft):
    """Each token has its own number as negative log-prob; two pairs share the path 1, 2."""

    def logps(config, num_chunks, params, micro):
        return -micro["targets"].astype(jnp.float32)

    monkeypatch.setattr(objectives, "micro_logps", logps)
    reference = {"ref_chosen": 0.0, "ref_rejected": 0.0}
    prompt, path = [9], [1, 2]
    pairs = [
        Group(
            str(chosen),
            (
                Example(prompt + path + chosen, [0, 2, 2] + [1] * len(chosen)),
                Example(prompt + path + rejected, [0] * 3 + [1] * len(rejected)),
            ),
            reference,
        )
        for chosen, rejected in (([3, 5], [4]), ([6], [3, 5]))
    ]
    # Margins .5 * (-8 + 4) = -2 and .5 * (-6 + 8) = 1: log(1 + e^2) and log(1 + e^-1).
    dpo = 2.1269280 + 0.3132617
    objective = DpoObjective(config, beta=0.5, sft_weight=0.2, sft_on=sft_on)
    for batches in (
        Batches(pairs, 2, LONGEST, 4, sft_alone=True),
        TrieBatches(pairs, ["p", "p"], 2, LONGEST, 2, sft_alone=True),
    ):
        sums = objective({"layers": {}}, micro_at(batches[0].arrays["micro"], 0))
        assert float(sums.metrics["sft_loss"]) == pytest.approx(sft)
        assert float(sums.loss) == pytest.approx(dpo + 0.2 * sft)
