from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec

from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.planning.topology import get_topology
from stair_jax.training.logps import greedy_logps, token_logps, weighted_logp

B, T, D, V = 3, 10, 5, 17


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    head = rng.normal(size=(V, D)).astype(np.float32)
    return hidden, head, rng.integers(0, V, (B, T)), rng.normal(size=(B, T)).astype(np.float32)


@pytest.mark.parametrize("num_chunks", [1, 3, 10])
def test_values_and_gradients_are_those_of_torch(inputs, num_chunks):
    hidden, head, targets, weights = inputs
    torch_hidden, torch_head = (torch.tensor(a, requires_grad=True) for a in (hidden, head))
    dense = torch.log_softmax(torch_hidden @ torch_head.T, -1)
    expected = dense.gather(-1, torch.tensor(targets)[..., None])[..., 0]
    (expected * torch.tensor(weights)).sum().backward()

    def loss(hidden, head):
        logps = token_logps(hidden, head, jnp.array(targets), num_chunks)
        return jnp.sum(logps * weights), logps

    gradients, logps = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(hidden, head)
    assert logps.dtype == jnp.float32
    np.testing.assert_allclose(logps, expected.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradients[0], torch_hidden.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients[1], torch_head.grad, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def terms_of_a_sum(inputs):
    """The sine of a weighted sum of log-probabilities, and its gradients."""
    hidden, head, targets, weights = inputs

    def terms(hidden, head):
        return jnp.sin(jnp.sum(token_logps(hidden, head, jnp.array(targets)) * weights))

    return jax.jit(jax.value_and_grad(terms, (0, 1)))(hidden, head)


@pytest.mark.parametrize("num_chunks", [1, 3, 7, 10])
def test_a_weighted_sum_and_its_gradients_are_those_of_its_terms(
    inputs, terms_of_a_sum, num_chunks
):
    hidden, head, targets, weights = inputs
    expected = terms_of_a_sum

    def whole(hidden, head):
        found = weighted_logp(hidden, head, jnp.array(targets), jnp.array(weights), num_chunks)
        return jnp.sin(found)

    found = jax.jit(jax.value_and_grad(whole, (0, 1)))(hidden, head)
    alone = jax.jit(whole)(hidden, head)  # without gradients
    np.testing.assert_allclose(alone, expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    for near, far in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(near, far, rtol=1e-3, atol=1e-5)


MESHES = [None, MeshShape(2, 2, 2), MeshShape(fsdp=4)]


@jax.jit
@partial(jax.value_and_grad, argnums=(0, 1))
def _dense_sum(hidden, head, targets, weights):
    return jnp.sin(jnp.sum(token_logps(hidden, head, targets, 1, 18) * weights))


@pytest.mark.parametrize(
    ("mesh_shape", "num_chunks"),
    [*zip(MESHES, (2, 7, 2), strict=True), (MeshShape(data=2, tensor=4), 7)],
    ids=str,
)
def test_a_weighted_sum_over_a_mesh(mesh_shape, num_chunks):
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(4, T, 8)).astype(np.float32)
    head = rng.normal(size=(20, 8)).astype(np.float32)
    targets = rng.integers(0, 18, (4, T))
    weights = (rng.random((4, T)) < 0.4) * rng.random((4, T)).astype(np.float32)
    expected = _dense_sum(hidden, head, targets, weights)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def gradient(hidden, head):
        given = jnp.array(targets), jnp.array(weights)
        return jnp.sin(weighted_logp(hidden, head, *given, num_chunks, 18))

    with nullcontext() if mesh_shape is None else use_mesh(make_mesh(mesh_shape)):
        found = jax.device_get(gradient(hidden, head))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    for near, far in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(near, far, rtol=1e-4, atol=1e-5)
    assert not np.any(found[1][1][18:])


@pytest.mark.parametrize(
    ("mesh_shape", "num_chunks"),
    [(None, 2), (None, 3), *((mesh_shape, 7) for mesh_shape in MESHES)],
    ids=str,
)
def test_positions_without_weight_are_left_out(mesh_shape, num_chunks):
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(4, T, 8)).astype(np.float32)
    head = rng.normal(size=(20, 8)).astype(np.float32)
    targets = rng.integers(0, 18, (4, T))
    weights = (rng.random((4, T)) < 0.4) * rng.random((4, T)).astype(np.float32)
    weights[1] = 0

    def loss(hidden, head, num_chunks, weights):
        logps = token_logps(hidden, head, jnp.array(targets), num_chunks, 18, weights)
        return jnp.sum(jnp.sin(logps) * (0 if weights is None else weights)), logps

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=2)
    with nullcontext() if mesh_shape is None else use_mesh(make_mesh(mesh_shape)):
        gradients, logps = jax.device_get(gradient(hidden, head, num_chunks, weights))
        dense, all_logps = jax.device_get(gradient(hidden, head, 1, weights))
        _, chunked = gradient(hidden, head, num_chunks, None)
    np.testing.assert_allclose(chunked, all_logps, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logps[weights > 0], all_logps[weights > 0], rtol=1e-5, atol=1e-6)
    for found, expected in zip(gradients, dense, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mesh_shape", "num_chunks"), [(None, 1), (None, 3), *((shape, 2) for shape in MESHES)], ids=str
)
def test_greedy_tokens_are_the_first_of_the_largest_logits(mesh_shape, num_chunks):
    rng = np.random.default_rng(2)
    hidden = rng.integers(-2, 3, (4, T, 8)).astype(np.float32)
    head = rng.integers(-1, 2, (20, 8)).astype(np.float32)
    head[[9, 16]] = head[3]  # as large wherever they are, in other parts of the vocabulary
    head[18:] = 5  # padding, larger than all
    hidden[:, :4] = 4 * head[3]
    logits = hidden @ head[:18].T
    best = logits.argmax(-1)  # the first, as in torch
    assert (best[:, :4] == 3).all() and len(np.unique(best)) > 5
    shift = rng.integers(0, 2, (4, T))
    targets = (best + 13 * shift) % 18
    targets[0, 0], shift[0, 0] = 16, 1  # equally large, but not the first
    weights = np.ones((4, T), np.float32)
    weights[2] = 0
    score = jax.jit(greedy_logps, static_argnums=(3, 4))
    with nullcontext() if mesh_shape is None else use_mesh(make_mesh(mesh_shape)):
        logps, greedy = jax.device_get(score(hidden, head, targets, num_chunks, 18, weights))
    counted = weights > 0
    assert (greedy[counted] == (shift == 0)[counted]).all()
    expected = torch.log_softmax(torch.tensor(logits), -1).numpy()
    expected = np.take_along_axis(expected, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(logps[counted], expected[counted], rtol=1e-5, atol=1e-5)


def test_pieces_without_weight_cost_nothing():
    hidden, head = np.ones((2, 8, 4), np.float32), np.ones((6, 4), np.float32)
    head[0, 0] = np.nan
    targets, weights = np.zeros((2, 8), int), np.zeros((2, 8), np.float32)
    logps = jax.jit(token_logps, static_argnums=(3, 4))(hidden, head, targets, 4, None, weights)
    assert not np.any(logps)  # skipped, not computed from NaN


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


def test_a_weighted_sum_computes_its_logits_once(inputs):
    hidden, head, targets, weights = inputs
    size = B * T // 5

    def products(loss):
        equations = equations_in(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, head).jaxpr)
        found = (each for each in equations if each.primitive.name == "dot_general")
        return sorted(each.outvars[0].aval.shape for each in found)

    def whole(hidden, head):
        return weighted_logp(hidden, head, jnp.array(targets), jnp.array(weights), 5)

    def terms(hidden, head):
        return jnp.sum(token_logps(hidden, head, jnp.array(targets), 5) * weights)

    assert products(whole) == [(size, D), (size, V), (V, D)]
    assert products(terms) == [(size, D), (size, V), (size, V), (V, D)]


@pytest.mark.parametrize("num_chunks", [1, 5])
def test_the_logits_of_a_whole_batch_exist_with_one_chunk_only(inputs, num_chunks):
    hidden, head, targets, weights = inputs

    def loss(hidden, head):
        return jnp.sum(token_logps(hidden, head, jnp.array(targets), num_chunks) * weights)

    equations = equations_in(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, head).jaxpr)
    shapes = [variable.aval.shape for equation in equations for variable in equation.outvars]
    largest = max(np.prod(shape) for shape in shapes if V in shape and shape != (V, D))
    assert largest == B * T * V / num_chunks


def test_bfloat16_activations_give_float32_log_probabilities(inputs):
    hidden, head, targets, _ = inputs
    logps_of = jax.jit(token_logps, static_argnums=3)
    logps = logps_of(hidden.astype(jnp.bfloat16), head, targets, 2)
    assert logps.dtype == jnp.float32
    exact = logps_of(hidden, head, targets, 1)
    np.testing.assert_allclose(logps, exact, atol=0.1)


def test_gradients_of_bfloat16_logits_are_near_the_exact_ones(inputs):
    hidden, head, targets, weights = inputs

    def terms(hidden, head, num_chunks):
        return jnp.sum(token_logps(hidden, head, jnp.array(targets), num_chunks) * weights)

    def whole(hidden, head, num_chunks):
        return weighted_logp(hidden, head, jnp.array(targets), jnp.array(weights), num_chunks)

    gradients = {loss: jax.jit(jax.grad(loss, (0, 1)), static_argnums=2) for loss in (terms, whole)}
    exact = gradients[terms](hidden, head, 1)
    for loss, num_chunks in ((terms, 1), (terms, 3), (whole, 3)):
        found = gradients[loss](hidden.astype(jnp.bfloat16), head, num_chunks)
        assert [g.dtype for g in found] == [jnp.bfloat16, jnp.float32]
        for near, far in zip(found, exact, strict=True):
            np.testing.assert_allclose(np.asarray(near, np.float32), far, atol=0.05)


@pytest.mark.parametrize("function", [token_logps, weighted_logp])
def test_gradients_of_a_head_of_its_own_are_summed_in_a_loop_on_tpus(function):
    """Regression: XLA for TPUs failed on the reduction of the accumulated gradient of the head."""
    pytest.importorskip("libtpu")
    mesh = make_mesh(MeshShape(fsdp=4), get_topology("v5p:2x2x1").devices)
    split, rows = NamedSharding(mesh, PartitionSpec(None, "fsdp")), rules.rows_sharding(mesh, 1)
    head = jax.ShapeDtypeStruct((256, 128), jnp.float32, sharding=split)
    hidden = jax.ShapeDtypeStruct((2, 8, 64, 128), jnp.bfloat16, sharding=rows)
    targets = jax.ShapeDtypeStruct((2, 8, 64), jnp.int32, sharding=rows)

    @jax.jit
    def summed(head, hidden, targets):
        def add(index, total):
            def loss(head):
                values = (targets[index] > 0).astype(jnp.float32)
                call = partial(function, hidden[index], head, targets[index])
                return jnp.sum(call(num_chunks=4, weights=values))

            return total + jax.lax.with_sharding_constraint(jax.grad(loss)(head), split)

        return jax.lax.fori_loop(0, 2, add, jnp.zeros_like(head))

    with use_mesh(mesh):
        compiled = summed.lower(head, hidden, targets).compile()
    assert compiled.output_shardings.is_equivalent_to(split, 2)
