"""Training adapters: what is computed, on which meshes, and what a checkpoint holds."""

import dataclasses
from contextlib import nullcontext
from functools import cache, partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from stair_jax.models import lora
from stair_jax.models.config import REMAT_POLICIES
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.testing.tiny_models import tiny_config
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batches
from stair_jax.training.objectives import DpoObjective, PrmObjective, SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import init_state, make_train_step, micro_at

RANK = 3
ADAPTERS = lora.Lora(RANK, 2.0, token_ids=(5, 36))


def equations_in(jaxpr):
    """The equations of a jaxpr, including those of its sub-jaxprs."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations_in(inner)


def shape(variable):
    """The lengths of an array's axes that are not 1, in order of size."""
    return tuple(sorted(size for size in variable.aval.shape if size > 1))


def draw(config):
    """(frozen, trained) parameters, where neither adapters nor rows are zero."""
    frozen, trained = lora.split(init_params(config, jax.random.key(0)))
    rng = np.random.default_rng(0)
    drawn = {
        name: jnp.asarray(rng.normal(size=leaf.shape, scale=0.2), leaf.dtype)
        for name, leaf in flax.traverse_util.flatten_dict(trained).items()
    }
    return frozen, flax.traverse_util.unflatten_dict(drawn)


def traced(config, num_chunks, groups, mesh=None):
    """The equations of the gradients of adapters."""
    frozen, trained = jax.eval_shape(lambda: draw(config))
    micro = micro_at(Batches(groups, 4, 13, 8)[0].arrays["micro"], 0)

    def gradients(frozen, trained):
        def loss(trained):
            return SftObjective(config, num_chunks)(lora.join(frozen, trained), micro).loss

        return jax.grad(loss)(trained)

    with nullcontext() if mesh is None else use_mesh(mesh):
        return list(equations_in(jax.make_jaxpr(gradients)(frozen, trained).jaxpr))


@pytest.mark.parametrize(
    ("num_chunks", "mesh_shape"), [(1, None), (3, None), (3, MeshShape(2, 2, 2))], ids=str
)
def test_a_frozen_head_has_no_gradient(num_chunks, mesh_shape, make_groups):
    """In bfloat16, where gradients of the head would be the only float32 arrays of its shape."""
    config = tiny_config(lora=ADAPTERS, dtype="bfloat16", param_dtype="bfloat16")
    mesh = mesh_shape and make_mesh(mesh_shape)
    equations = traced(config, num_chunks, make_groups(4), mesh)
    tables = [tuple(sorted(size)) for size in ((40, 16), (20, 16), (20, 8))]
    made = [variable for each in equations for variable in each.outvars]
    shapes = [shape(variable) for variable in made if variable.aval.dtype == jnp.float32]
    assert shapes and not set(shapes) & set(tables)
    products = [each for each in equations if each.primitive.name == "dot_general"]
    assert not {shape(each.outvars[0]) for each in products} & set(tables)


# Products with the seven kernels: in the forward pass, for the gradients of the inputs, and again.
PRODUCTS = {"none": 14, "full": 20, "dots": 14, "attention": 17, "attention_mlp": 14, "offload": 20}


@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_frozen_kernels_have_no_gradients_and_those_of_adapters_repeat_no_product(
    remat, make_groups
):
    config = tiny_config(lora=ADAPTERS, remat=remat)
    frozen, trained = jax.eval_shape(lambda: draw(config))
    kernels, halves = (
        {tuple(sorted(size for size in leaf.shape[1:] if size > 1)) for leaf in leaves}
        for leaves in (
            [frozen["layers"][name] for name in lora.KERNELS],
            trained["layers"].values(),
        )
    )
    products = [
        each for each in traced(config, 3, make_groups(4)) if each.primitive.name == "dot_general"
    ]
    made = [shape(each.outvars[0]) for each in products]
    assert not kernels & set(made)
    assert halves <= set(made)
    reads = [each for each in products if kernels & set(map(shape, each.invars))]
    assert len(reads) == PRODUCTS[remat]


SETTINGS = TrainingSettings(learning_rate=1e-2, eps=1e-2, clip_norm=0.0)
OBJECTIVES = {
    "sft": lambda config, num_chunks: SftObjective(config, num_chunks),
    "dpo": lambda config, num_chunks: DpoObjective(config, 0.3, 0.2, num_chunks),
    "prm": lambda config, num_chunks: PrmObjective(config),
}


def trained_once(make_groups, kind, mesh, num_chunks=1, multiple=1, **changes):
    """(trained parameters, metrics) after one step of two micro-batches."""
    config = tiny_config(42, num_attention_heads=4, lora=ADAPTERS, **changes)
    config = fit_to_mesh(config, mesh, multiple)
    frozen, trained = draw(config)
    axes = logical_axes(config)
    if kind == "prm":
        score = {"kernel": jnp.linspace(-1, 1, 16)}
        frozen, trained = {"model": frozen}, {"model": trained, "score": score}
        axes = {"model": axes, "score": {"kernel": PartitionSpec("embed")}}
    still, moving = lora.split(axes)
    frozen = jax.device_put(frozen, rules.shardings(still, mesh))
    groups = [
        dataclasses.replace(group, values={"ref_chosen": -20.0, "ref_rejected": -25.0})
        for group in (make_groups(20) if kind == "sft" else make_groups(10, 2))
    ]
    batch = Batches(groups, 20, 16, 8)[0]
    assert int(batch.arrays["count"]) > 1
    optimizer = make_optimizer(SETTINGS, 1)
    state = init_state(trained, moving, optimizer.tx, mesh)
    with use_mesh(mesh):
        step = make_train_step(OBJECTIVES[kind](config, num_chunks), optimizer.tx, state)
        state, metrics = step(state, put_batch(batch.arrays, mesh), np.float32(1e-2), frozen)
    return jax.device_get((state.params, metrics))


@pytest.fixture(scope="module")
def on_one_device(request):
    """The step of each objective on one device, made once."""
    return cache(partial(trained_once, mesh=make_mesh()))


@pytest.mark.parametrize(
    ("kind", "mesh_shape", "num_chunks", "remat"),
    [
        ("sft", MeshShape(2, 2, 2), 3, "attention_mlp"),
        ("dpo", MeshShape(data=2, tensor=4), 1, "dots"),
        ("dpo", MeshShape(fsdp=4), 3, "attention"),
        ("prm", MeshShape(fsdp=2, tensor=2), 1, "full"),
    ],
    ids=str,
)
def test_a_step_is_the_same_on_all_meshes(
    kind, mesh_shape, num_chunks, remat, on_one_device, make_groups
):
    """With one head of keys and values, which `tensor` cannot split, and a padded vocabulary."""
    expected = on_one_device(make_groups, kind)
    mesh = make_mesh(mesh_shape)
    found = trained_once(make_groups, kind, mesh, num_chunks, 4, remat=remat)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for near, far in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(near, far, rtol=1e-4, atol=2e-6)


def test_weight_decay_and_the_norm_are_those_of_adapters(make_groups):
    """Where B is zero, A has no gradient: decay alone moves it, and the norm is that of B."""
    config = tiny_config(lora=lora.Lora(RANK, 2.0))
    mesh = make_mesh()
    frozen, trained = lora.split(init_params(config, jax.random.key(0)))
    before = jax.device_get(trained["layers"])
    settings = dataclasses.replace(SETTINGS, weight_decay=0.5, eps=1e-30)
    optimizer = make_optimizer(settings, 1)
    state = init_state(trained, lora.split(logical_axes(config))[1], optimizer.tx, mesh)
    batch = Batches(make_groups(4), 4, 16, 4)[0]
    with use_mesh(mesh):
        step = make_train_step(SftObjective(config), optimizer.tx, state)
        state, metrics = step(state, put_batch(batch.arrays, mesh), np.float32(1e-2), frozen)
    after = jax.device_get(state.params["layers"])
    for name in lora.KERNELS:
        np.testing.assert_allclose(
            after[name + lora.A], before[name + lora.A] * (1 - 1e-2 * 0.5), rtol=1e-6
        )
        np.testing.assert_allclose(np.abs(after[name + lora.B]), 1e-2, rtol=1e-3)  # Adam's first
    assert float(metrics["grad_norm"]) > 0
