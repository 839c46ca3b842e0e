import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from stair_jax.models.transformer import apply, init_params, logical_axes
from stair_jax.parallel.mesh import make_mesh, use_mesh
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batch, Batches, Group
from stair_jax.training.losses import sft_loss
from stair_jax.training.objectives import DpoObjective, PrmObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.step import (
    Sums,
    abstract_state,
    init_state,
    make_train_step,
    micro_at,
)


@dataclasses.dataclass(frozen=True)
class Unigram:
    """A model that ignores its input: quick to compile, with gradients that are easy by hand."""

    def __call__(self, params, micro):
        """The loss of SFT."""
        logps = jax.nn.log_softmax(params["logits"])[micro["targets"]]
        return Sums(*sft_loss(logps, micro["weights"]), metrics={})


UNIGRAM = {"logits": np.zeros(40, np.float32)}
UNIGRAM_AXES = {"logits": PartitionSpec("vocab")}


def start(params, axes, settings, num_steps=10):
    """The mesh, the optimizer and a state of the parameters."""
    mesh, optimizer = make_mesh(), make_optimizer(settings, num_steps)
    return mesh, optimizer, init_state(jax.tree.map(jnp.copy, params), axes, optimizer.tx, mesh)


def run_step(objective, params, axes, settings, batch):
    """(state, metrics) after one step."""
    mesh, optimizer, state = start(params, axes, settings)
    with use_mesh(mesh):
        step = make_train_step(objective, optimizer.tx, state)
        return step(state, put_batch(batch.arrays, mesh), np.float32(1e-2))


def assert_close(first, second, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol), first, second)


def test_accumulated_sums_equal_one_big_batch(settings, make_groups):
    """Micro-batches with very different numbers of loss tokens: a mean of means would be wrong."""
    groups = [
        dataclasses.replace(
            group,
            examples=(dataclasses.replace(example, loss_mask=[0] * (n - 1) + [1]),),
        )
        if (n := len(example := group.examples[0])) <= 8
        else group
        for group in make_groups(6)
    ]
    many = Batches(groups, 6, 16, 1)[0]
    one = Batches(groups, 6, 16, 6)[0]
    assert int(many.arrays["count"]) > 3 and int(one.arrays["count"]) == 1
    results = [run_step(Unigram(), UNIGRAM, UNIGRAM_AXES, settings, b) for b in (many, one)]
    assert_close(*results)
    counted = [
        token
        for group in groups
        for token, mask in zip(group.examples[0].tokens, group.examples[0].loss_mask, strict=True)
        if mask
    ]
    metrics = results[0][1]
    assert float(metrics["weight"]) == len(counted)
    assert float(metrics["loss"]) == pytest.approx(np.log(40))
    gradient = 1 / 40 - np.bincount(counted, minlength=40) / len(counted)
    assert float(metrics["grad_norm"]) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


def test_padding_does_not_change_the_step(config, params, settings, make_groups):
    reference = {"ref_chosen": -3.0, "ref_rejected": -4.0}
    groups = [dataclasses.replace(group, values=reference) for group in make_groups(3, 2)]
    objective = DpoObjective(config, beta=0.1, sft_weight=0.2)
    batches = [Batches(groups, 3, 13, 6)[0], Batches(groups, 8, 24, 5)[0]]
    results = [run_step(objective, params, logical_axes(config), settings, b) for b in batches]
    assert_close(*results)


def test_unused_micro_batches_are_not_read(settings, make_groups):
    batch = Batches(make_groups(2), 8, 32, 2)[0]
    count = int(batch.arrays["count"])
    batch.arrays["micro"]["weights"][count:] = np.nan
    _, metrics = run_step(Unigram(), UNIGRAM, UNIGRAM_AXES, settings, batch)
    assert count < len(batch.arrays["micro"]["weights"]) and np.isfinite(metrics["loss"])


@functools.partial(jax.jit, static_argnums=0)
def hidden_of(config, params, tokens):
    return apply(config, params, tokens[None], jnp.arange(len(tokens))[None])[0]


def hidden_alone(config, params, example):
    """Hidden states of one sequence, padded; causal attention ignores the padding."""
    tokens = np.zeros(12, np.int32)
    tokens[: len(example)] = example.tokens
    return np.asarray(hidden_of(config, params, tokens), np.float64)


def test_dpo_sums_are_those_of_each_sequence_alone(config, params, make_groups):
    """Packing, masks and pairing, against one forward pass per sequence and losses in NumPy."""
    groups = make_groups(4, 2)
    reference = [(-2.0 - i, -3.0) for i in range(4)]
    groups = [
        Group(g.id, g.examples, {"ref_chosen": c, "ref_rejected": r})
        for g, (c, r) in zip(groups, reference, strict=True)
    ]

    def logp(example):
        logits = hidden_alone(config, params, example) @ np.asarray(params["embedding"].T)
        logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        places = [i for i, m in enumerate(example.loss_mask) if m]
        return sum(logps[i - 1, example.tokens[i]] for i in places), len(places)

    expected = 0.0
    for group, (ref_chosen, ref_rejected) in zip(groups, reference, strict=True):
        (chosen, length), (rejected, _) = map(logp, group.examples)
        margin = 0.3 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        expected += np.log1p(np.exp(-margin)) - 0.2 * chosen / length
    batch = Batches(groups, 4, 40, 2)[0]
    objective = jax.jit(DpoObjective(config, 0.3, 0.2))
    total = 0.0
    for index in range(int(batch.arrays["count"])):
        total += float(objective(params, micro_at(batch.arrays["micro"], index)).loss)
    assert total == pytest.approx(expected, rel=1e-4)


def test_the_score_is_read_at_the_last_token(config, params, make_groups):
    (group,) = make_groups(1, 2)
    head = {"kernel": jnp.arange(16.0) - 5}

    def score(example):
        return hidden_alone(config, params, example)[len(example) - 1] @ np.asarray(head["kernel"])

    chosen, rejected = map(score, group.examples)
    batch = Batches([group], 3, 32, 2)[0]
    micro = micro_at(batch.arrays["micro"], 0)
    sums = jax.jit(PrmObjective(config))({"model": params, "score": head}, micro)
    assert float(sums.weight) == 1
    assert float(sums.metrics["chosen_score"]) == pytest.approx(chosen, rel=1e-4)
    assert float(sums.loss) == pytest.approx(
        np.log1p(np.exp(rejected - chosen)), rel=1e-3, abs=1e-5
    )


@pytest.mark.parametrize("mu_dtype", ["float32", "bfloat16"])
def test_moments_have_dtypes_of_their_own(mu_dtype, settings, make_groups):
    settings = dataclasses.replace(settings, mu_dtype=mu_dtype)
    params = {"logits": jnp.zeros(40, jnp.bfloat16)}
    batch = Batches(make_groups(4), 4, 16, 2)[0]
    _, _, before = start(params, UNIGRAM_AXES, settings)
    after, _ = run_step(Unigram(), params, UNIGRAM_AXES, settings, batch)
    for state in (before, after):
        adam = next(part for part in state.opt_state if hasattr(part, "mu"))
        assert state.params["logits"].dtype == jnp.bfloat16
        assert (adam.mu["logits"].dtype, adam.nu["logits"].dtype) == (mu_dtype, jnp.float32)


def test_the_abstract_state_is_that_of_the_real_one(config, params, settings):
    mesh, optimizer, state = start(params, logical_axes(config), settings)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    abstract = abstract_state(shapes, logical_axes(config), optimizer.tx, mesh)

    def facts(leaf):
        return leaf.shape, leaf.dtype, leaf.sharding

    assert jax.tree.map(facts, abstract) == jax.tree.map(facts, state)


def test_gradients_of_bfloat16_parameters_are_summed_in_float32(settings):
    """A sum of ones in bfloat16 does not get past 256."""

    def objective(params, micro):
        return Sums(jnp.sum(params["x"].astype(jnp.float32)), jnp.float32(1.0), {})

    batch = Batch({"count": np.int32(300), "micro": {"a": np.zeros((300, 1))}}, (), (), 0)
    params = {"x": jnp.ones(2, jnp.bfloat16)}
    _, metrics = run_step(objective, params, {"x": PartitionSpec(None)}, settings, batch)
    assert float(metrics["grad_norm"]) == pytest.approx(2**0.5, rel=1e-6)


def test_stages_that_agree_share_one_compiled_step(settings, make_groups):
    def train(learning_rate, num_groups):
        rated = dataclasses.replace(settings, learning_rate=learning_rate)
        params = {"logits": np.zeros(41, np.float32)}  # a shape that no other test has compiled
        mesh, optimizer, state = start(params, UNIGRAM_AXES, rated, num_groups)
        step = make_train_step(Unigram(), optimizer.tx, state)
        sizes = [step._cache_size()]
        with use_mesh(mesh):
            for number, batch in enumerate(Batches(make_groups(num_groups), 4, 16, 3)):
                rate = np.float32(optimizer.schedule(number))
                state, _ = step(state, put_batch(batch.arrays, mesh), rate)
                sizes.append(step._cache_size())
        return step, sizes

    first, sizes = train(1e-3, 5)
    assert sizes == [sizes[0], *[sizes[0] + 1] * 2]
    second, sizes_then = train(1e-4, 9)
    assert second is first
    assert sizes_then == sizes[-1:] * 4
