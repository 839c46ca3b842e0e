"""AdamW in less memory: updates, meshes, host memory, going on from a checkpoint."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.planning.cost import host_bytes, local_bytes
from stair_jax.training.batches import Batch
from stair_jax.training.loop import TrainingRun, train
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.optimizers import host_memory, layers
from stair_jax.training.optimizers.frugal import FrugalAdam
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import (
    Sums,
    abstract_state,
    in_host_memory,
    init_state,
    make_train_step,
)

AXES = {
    "embedding": P("vocab", "embed"),
    "layers": {"kernel": P("layers", "embed", "mlp"), "norm": P("layers", "embed")},
}
BF16 = {"param_dtype": "bfloat16"}
OPTIONS = {
    "int8": {"mu_dtype": "int8", "second_moment": "int8"},
    "factored": {"second_moment": "factored", "mu_dtype": "bfloat16"},
    "stochastic": {"rounding": "stochastic", **BF16},
    "kahan": {"rounding": "kahan", **BF16},
    "accumulate": {"accumulate_dtype": "bfloat16", **BF16},
    "offload": {"offload": True},
    "all": {"rounding": "stochastic", "mu_dtype": "int8", "second_moment": "int8", **BF16}
    | {"accumulate_dtype": "bfloat16", "offload": True},
}


@dataclasses.dataclass(frozen=True)
class Regression:
    """Two layers behind an embedding, fitted to the sums of random tables."""

    def __call__(self, params, micro):
        """Squared errors."""
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        hidden = wide["embedding"][micro["tokens"][:, 0]]
        for layer in range(2):
            kernel, norm = (wide["layers"][name][layer] for name in ("kernel", "norm"))
            hidden = hidden + jnp.tanh(hidden * norm) @ kernel
        loss = jnp.mean(jnp.square(hidden - micro["targets"]), axis=-1)
        return Sums(jnp.sum(loss), jnp.float32(len(loss)), {})


def make_params(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"embedding": (16, 64), "layers": {"kernel": (2, 64, 64), "norm": (2, 64)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(0.1 * rng.standard_normal(shape), dtype),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def make_settings(**changes):
    return TrainingSettings(learning_rate=2e-2, warmup_ratio=0.0, **changes)


def make_batches(count, passes=2):
    rng = np.random.default_rng(1)
    tables = rng.standard_normal((16, 64)).astype(np.float32)
    batches = []
    for _ in range(count):
        tokens = rng.integers(0, 16, (passes, 8, 1))
        micro = {"tokens": tokens, "targets": tables[tokens[..., 0]]}
        batches.append(Batch({"count": np.int32(passes), "micro": micro}, (), (), 0))
    return batches


def run(settings, steps=3, shape=(1, 1, 1), passes=2):
    """(state, losses) of so many steps on a mesh."""
    mesh, optimizer = make_mesh(MeshShape(*shape)), make_optimizer(settings, steps)
    state = init_state(make_params(settings.param_dtype), AXES, optimizer.tx, mesh)
    step = make_train_step(Regression(), optimizer.tx, state)
    losses = []
    with use_mesh(mesh):
        for number, batch in enumerate(make_batches(steps, passes)):
            rate = np.float32(optimizer.schedule(number))
            state, metrics = step(state, batch.arrays, rate)
            losses.append(float(metrics["loss"]))
    return state, losses


def wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf.astype(jnp.float32)), tree)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def update(tx, params, gradients, steps=1, rate=1e-2, axes=None, shape=(1, 1, 1)):
    """(parameters, state) after steps with the same gradients."""
    mesh = make_mesh(MeshShape(*shape))
    axes = axes or AXES
    state = init_state(jax.tree.map(jnp.copy, params), axes, tx, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    gradients = jax.device_put(gradients, shardings.params)

    def step(state):
        new, kept, _ = tx.apply(gradients, jnp.float32(2), *state, jnp.float32(rate))
        return type(state)(new, kept)

    jitted = jax.jit(step, out_shardings=shardings)
    for _ in range(steps):
        state = jitted(state)
    return state


def gradients_like(params, seed=5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), params
    )


def test_without_a_saving_the_optimizer_is_that_of_optax():
    for values in ({}, {"mu_dtype": "bfloat16"}, BF16):
        assert isinstance(
            make_optimizer(make_settings(**values), 1).tx, optax.GradientTransformation
        )
    for values in OPTIONS.values():
        assert isinstance(make_optimizer(make_settings(**values), 1).tx, FrugalAdam)


def test_updates_are_those_of_adamw():
    settings = make_settings(weight_decay=0.1, clip_norm=0.5, accumulate_dtype="bfloat16")
    params = make_params()
    gradients = gradients_like(params)
    ours = update(make_optimizer(settings, 9).tx, params, gradients, steps=3)
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=0.1))
    state = theirs.init(params)
    halves = jax.tree.map(lambda gradient: gradient / 2, gradients)
    for _ in range(3):
        updates, state = theirs.update(halves, state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours.params, params
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_a_small_regression_is_fitted_nearly_as_well_as_in_float32(name):
    _, expected = run(make_settings(), steps=60)
    _, losses = run(make_settings(**OPTIONS[name]), steps=60)
    assert expected[-1] < 0.75 * expected[0]
    assert np.mean(losses[-5:]) < np.mean(expected[-5:]) + 0.03 * expected[0]


def test_updates_below_half_an_ulp_add_up_unless_they_are_rounded_to_the_nearest():
    """A parameter of 1 falls by 100 steps of 1/4096: neighbours below it are 1/256 apart."""
    axes, params = {"w": P(None)}, {"w": jnp.ones(2048, jnp.bfloat16)}
    gradients = {"w": jnp.ones(2048)}

    def fallen(rounding, **options):
        settings = make_settings(rounding=rounding, clip_norm=0.0, **BF16, **options)
        tx = make_optimizer(settings, 1).tx
        return update(tx, params, gradients, steps=100, rate=2.0**-12, axes=axes)

    expected = 1 - 100 / 4096
    assert (wide(fallen("nearest", second_moment="factored").params)["w"] == 1).all()
    kahan = fallen("kahan")
    total = wide(kahan.params)["w"] + wide(kahan.opt_state.kept)["w"]["lost"]
    np.testing.assert_allclose(total, expected, atol=1e-4)
    stochastic = wide(fallen("stochastic").params)["w"]
    deviation = (100 * 1 / 16 * 15 / 16) ** 0.5 / 256  # of one: each step is taken with 1 in 16
    assert stochastic.mean() == pytest.approx(expected, abs=5 * deviation / 2048**0.5)
    assert stochastic.std() == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize("name", ["int8", "stochastic", "kahan", "offload", "all"])
def test_an_update_on_a_mesh_is_that_on_one_device(name):
    """Also what is drawn at random: it would differ in half of the elements."""
    settings = make_settings(clip_norm=0.0, **OPTIONS[name])
    tx, params = make_optimizer(settings, 1).tx, make_params(settings.param_dtype)
    gradients = gradients_like(params)
    alone = update(tx, params, gradients, steps=2)
    sharded = update(tx, params, gradients, steps=2, shape=(1, 4, 2))
    first = sharded.opt_state.kept["layers"]["kernel"]["first"]
    assert jax.tree.leaves(first)[0].sharding.spec == P(None, "fsdp", "tensor")
    for one, eight in zip(
        *(jax.tree.leaves(wide(state)) for state in (alone, sharded)), strict=True
    ):
        is_close = np.isclose(one, eight, rtol=1e-5, atol=1e-7)
        assert is_close.mean() > 0.99


def test_a_factored_step_on_a_mesh_is_that_on_one_device():
    settings = make_settings(**OPTIONS["factored"])
    alone, losses = run(settings)
    sharded, others = run(settings, shape=(2, 2, 2))
    assert others == pytest.approx(losses, rel=1e-4)
    kept = sharded.opt_state.kept["layers"]["kernel"]["second"]
    assert kept["rows"].sharding.spec == P(None, "fsdp")
    assert kept["columns"].sharding.spec == P(None, "tensor")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-4),
        wide(sharded.params),
        wide(alone.params),
    )


def test_layers_are_factored_and_rounded_each_by_itself():
    """The other layer's gradients do not matter; two layers draw bits of their own."""
    settings = make_settings(second_moment="factored", clip_norm=0.0, **OPTIONS["stochastic"])
    tx, params = make_optimizer(settings, 1).tx, make_params("bfloat16")
    gradients = gradients_like(params)
    scaled = jax.tree.map(jnp.copy, gradients)
    scaled["layers"]["kernel"] = scaled["layers"]["kernel"].at[1].multiply(100)
    first, second = (update(tx, params, each).params["layers"] for each in (gradients, scaled))
    np.testing.assert_array_equal(first["kernel"][0], second["kernel"][0])
    same = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) + 0.1, params)
    equal = jax.tree.map(jnp.ones_like, gradients)
    kernel = wide(update(tx, same, equal, rate=1e-4).params["layers"]["kernel"])
    assert len(np.unique(kernel)) == 2 and 0.2 < np.mean(kernel[0] != kernel[1]) < 0.8


def test_the_abstract_state_is_that_of_the_real_one():
    def facts(leaf):
        return leaf.shape, leaf.dtype, leaf.sharding

    mesh = make_mesh(MeshShape(fsdp=2, tensor=2, data=2))
    for values in OPTIONS.values():
        settings = make_settings(**values)
        tx, params = make_optimizer(settings, 1).tx, make_params(settings.param_dtype)
        real = init_state(params, AXES, tx, mesh)
        abstract = abstract_state(jax.eval_shape(lambda each=params: each), AXES, tx, mesh)
        assert jax.tree.map(facts, abstract) == jax.tree.map(facts, real)
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(real.opt_state))


def test_bytes_of_the_state_by_hand():
    """The kernels have 8192 elements, the embedding 1024, the norms 128; blocks have 64."""

    def state(**values):
        settings = make_settings(**values)
        tx, params = make_optimizer(settings, 1).tx, make_params(settings.param_dtype)
        whole = abstract_state(params, AXES, tx, make_mesh(MeshShape(fsdp=1)))
        away = in_host_memory(tx, whole)
        assert host_bytes(away) == host_bytes(whole) and local_bytes(away) == 0
        return whole

    codes, norms = 9216, 128
    assert local_bytes(state()) == 4 * 3 * (codes + norms) + 4
    eight = 2 * (codes + codes // 64 * 4) + 2 * 4 * norms + 4
    assert local_bytes(state(**OPTIONS["int8"], **BF16)) == 2 * (codes + norms) + eight
    offloaded = state(**OPTIONS["int8"], **BF16, offload=True)
    assert local_bytes(offloaded) == 2 * (codes + norms) + 2 * 4 * norms + 4
    assert host_bytes(offloaded) == eight - 2 * 4 * norms - 4
    factors = 2 * (64 + 64) + (16 + 64) + norms
    assert local_bytes(state(**OPTIONS["factored"])) == (4 + 2) * (codes + norms) + 4 * factors + 4


def test_moments_in_host_memory_give_the_same_bits():
    values = {"mu_dtype": "int8", "second_moment": "int8"}
    here, _ = run(make_settings(**values))
    there, _ = run(make_settings(**values, offload=True), shape=(1, 1, 1))
    assert bits(there) == bits(here)
    kept = there.opt_state.kept
    norms = jax.tree.leaves(kept["layers"].pop("norm"))
    assert all(map(host_memory.is_pinned, jax.tree.leaves(kept)))
    assert not any(map(host_memory.is_pinned, norms))  # they are few
    assert all(not host_memory.is_pinned(leaf) for leaf in jax.tree.leaves(there.params))


def test_gradients_are_summed_in_the_dtype_that_is_set():
    """A sum of ones in bfloat16 does not get past 256; of one micro-batch there is no sum."""

    def objective(params, micro):
        return Sums(jnp.sum(params["x"].astype(jnp.float32)), jnp.float32(1.0), {})

    def norm(count, **values):
        tx = make_optimizer(make_settings(**values, **BF16), 1).tx
        params, axes, mesh = {"x": jnp.ones(1, jnp.bfloat16)}, {"x": P(None)}, make_mesh()
        state = init_state(params, axes, tx, mesh)
        batch = {"count": np.int32(count), "micro": {"a": np.zeros((count, 1))}}
        with use_mesh(mesh):
            _, metrics = make_train_step(objective, tx, state)(state, batch, np.float32(0))
        return float(metrics["grad_norm"]) * count

    assert norm(300, accumulate_dtype="bfloat16") == pytest.approx(256, rel=1e-6)
    assert norm(300, second_moment="factored") == pytest.approx(300, rel=1e-6)
    assert norm(1, second_moment="factored") == 1


def test_a_gradient_that_is_not_finite_is_seen():
    settings = make_settings(**OPTIONS["all"])
    mesh, tx = make_mesh(), make_optimizer(settings, 1).tx
    state = init_state(make_params("bfloat16"), AXES, tx, mesh)
    (batch,) = make_batches(1)
    batch.arrays["micro"]["targets"][0, 0, 0] = np.inf
    with use_mesh(mesh):
        _, metrics = make_train_step(Regression(), tx, state)(state, batch.arrays, np.float32(1))
    assert not np.isfinite(metrics["loss"]) and not np.isfinite(metrics["grad_norm"])


class Stopped(Exception):
    """Stands in for a kill."""


def train_run(folder, values, stop_at=None):
    settings = make_settings(**values)
    batches = make_batches(6)
    training = TrainingRun(
        name="test",
        folder=folder,
        objective=Regression(),
        optimizer=make_optimizer(settings, len(batches)),
        batches=batches,
        mesh=make_mesh(),
        checkpoint_every=2,
    )

    def inspect(step, _):
        if step == stop_at:
            raise Stopped

    return train(training, make_params(settings.param_dtype), AXES, inspect=inspect)


@pytest.mark.parametrize("name", ["int8", "factored", "kahan", "all"])
def test_a_stopped_run_goes_on_to_the_same_bits(name, tmp_path):
    whole = train_run(tmp_path / "whole", OPTIONS[name])
    with pytest.raises(Stopped):
        train_run(tmp_path / "stopped", OPTIONS[name], stop_at=3)
    assert bits(train_run(tmp_path / "stopped", OPTIONS[name])) == bits(whole)
    lines = [(tmp_path / of / "metrics.jsonl").read_text() for of in ("whole", "stopped")]
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 6


def test_another_optimizer_on_a_resume_is_named(tmp_path):
    train_run(tmp_path, OPTIONS["int8"])
    about = json.loads((tmp_path / "checkpoints" / "6" / "about" / "metadata").read_text())
    assert about["optimizer"] == OPTIONS["int8"]
    with pytest.raises(UserError, match=r"another optimizer \(mu_dtype was int8, now None\)"):
        train_run(tmp_path, {"second_moment": "int8"})
    with pytest.raises(UserError, match=r"another optimizer \(mu_dtype was int8, now None\)"):
        train_run(tmp_path, {})


def test_rounding_that_would_do_nothing_is_refused():
    with pytest.raises(UserError, match="rounding is 'kahan', which is for bfloat16 parameters"):
        make_settings(rounding="kahan")
    with pytest.raises(UserError, match="adapters are float32 parameters"):
        make_settings(rounding="stochastic", lora={"rank": 4}, **BF16)


def test_devices_without_pinned_memory_are_refused(tpu):
    class Device:
        platform, device_kind = "gpu", "Old"

        def addressable_memories(self):
            return [SimpleNamespace(kind="device")]

    host_memory.check(jax.devices()[0], in_eight_bits=True)
    with pytest.raises(UserError, match=r"offload needs host memory .* gpu devices like Old"):
        host_memory.check(Device(), in_eight_bits=False)
    chip = tpu("v5e:2x2").devices[0]
    host_memory.check(chip, in_eight_bits=False)
    with pytest.raises(UserError, match="does not go with moments in int8 on TPUs"):
        host_memory.check(chip, in_eight_bits=True)


@pytest.mark.parametrize("values", [{"mu_dtype": "bfloat16"}, {"rounding": "kahan"}])
def test_moments_of_half_precision_in_host_memory_compile_for_tpus(tpu, values):
    """Whose compiler takes no single row of them, such as a norm of one layer, off the host."""
    tx = make_optimizer(make_settings(**values, **BF16, offload=True), 1).tx
    params = jax.eval_shape(lambda: make_params("bfloat16"))
    mesh = make_mesh(MeshShape(1, 1, 1), tpu("v5e:1x1").devices)
    state = abstract_state(params, AXES, tx, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, state)

    def step(state):
        ones = jax.tree.map(jnp.ones_like, state.params)
        new, kept, _ = tx.apply(ones, jnp.float32(1), *state, jnp.float32(1))
        return type(state)(new, kept)

    stats = jax.jit(step, out_shardings=places, donate_argnums=0).lower(state).compile()
    assert stats.memory_analysis().host_argument_size_in_bytes > 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 2)])
@pytest.mark.parametrize("name", ["int8", "all"])
def test_an_update_in_pieces_has_the_same_bits(name, shape, monkeypatch):
    """Also what is drawn at random: a row has its bits in whatever piece it is."""
    settings = make_settings(**{**OPTIONS[name], "offload": False})
    whole, losses = run(settings, steps=2, shape=shape)
    monkeypatch.setattr(layers, "_PIECE", 256)
    pieces, others = run(settings, steps=2, shape=shape)
    assert others == losses
    assert bits(pieces) == bits(whole)
    assert shardings(pieces) == shardings(whole)


def shardings(state):
    return [leaf.sharding for leaf in jax.tree.leaves(state)]


def test_a_piece_is_small_and_leaves_each_device_whole_rows():
    def shape(*size, dtype=jnp.int8):
        return jax.ShapeDtypeStruct(size, dtype)

    def count(rows, columns, kept=None):
        param = shape(rows, columns, dtype=jnp.bfloat16)
        return layers.num_pieces(param, kept or {"codes": param, "scales": shape(rows, 16)})

    assert count(4096, 4096) == 1  # a piece
    assert count(128_384, 4096) == 34  # of 3776 rows, 8 x 472
    assert count(128_260, 4096) == 53  # of 2420: 4 divides the rows, 8 does not
    assert count(128_257, 4096) == 1  # a prime
    factored = {"rows": shape(128_384), "columns": shape(4096)}
    assert count(128_384, 4096, factored) == 1  # a mean over rows needs all of them


def test_an_update_in_pieces_needs_less_memory():
    """What is decoded of the moments, and their average, is there for one piece at a time."""
    tx = make_optimizer(make_settings(**OPTIONS["int8"], clip_norm=0.0), 1).tx
    params = {"embedding": jnp.zeros((32_768, 64))}
    axes = {"embedding": P("vocab", "embed")}
    state = init_state(params, axes, tx, make_mesh(MeshShape(1, 1, 1)))

    def temporary(piece):
        def step(params, kept, gradients):
            new, kept, _ = tx.apply(gradients, jnp.float32(1), params, kept, jnp.float32(1))
            return new, kept

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layers, "_PIECE", piece)
            jitted = jax.jit(step, donate_argnums=(0, 1))
            compiled = jitted.lower(state.params, state.opt_state, state.params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2**17) < temporary(2**24) / 4
