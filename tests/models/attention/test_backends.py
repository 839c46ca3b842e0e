"""Attention backends against a float64 reference, with packed segments, trees and meshes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from stair_jax.errors import UserError
from stair_jax.models.attention import backends
from stair_jax.models.attention.backends import BACKENDS, default_backend, get_backend
from stair_jax.models.transformer import apply
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh

XLA = get_backend("xla")
ATTEND = jax.jit(XLA)
LENGTH = 16


def inputs(seed, batch, length, heads=4, kv_heads=2, head_dim=6, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = [(batch, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def reference(query, key, value, sees):
    """Attention in float64; `sees(b, t)` lists what token t of row b attends to."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    out = np.zeros(query.shape)
    for b, t, head in np.ndindex(*query.shape[:3]):
        own = head * key.shape[2] // query.shape[2]
        seen = sees(b, t)
        scores = key[b, seen, own] @ query[b, t, head] / np.sqrt(query.shape[3])
        weights = np.exp(scores - scores.max())
        out[b, t, head] = weights @ value[b, seen, own] / weights.sum()
    return out


@st.composite
def trees(draw):
    """Two rows of one or two trees each: (parent, index of the tree, tokens) of each node."""
    rows = []
    for _ in range(2):
        nodes, left = [], LENGTH  # (parent or -1, tree, tokens)
        for tree in range(draw(st.integers(1, 2))):
            path = []
            for _ in range(draw(st.integers(1, 5))):
                # Preorder: the parent is the previous node or one of its ancestors.
                path = path[: draw(st.integers(1, len(path)))] if path else path
                size = min(draw(st.integers(1, 3)), left)
                if size:
                    nodes.append((path[-1] if path else -1, tree, size))
                    path, left = [*path, len(nodes) - 1], left - size
        rows.append(nodes)
    return rows


def laid_out(rows):
    """`segment_ids` and `ends`, and the node of each token of each row."""
    ids, ends = np.zeros((2, len(rows), LENGTH), np.int32)
    owners = []
    for row, nodes in enumerate(rows):
        owner = [index for index, (*_, size) in enumerate(nodes) for _ in range(size)]
        for position, node in enumerate(owner):
            ids[row, position] = nodes[node][1] + 1
            below = [p for p, other in enumerate(owner) if node in path_of(nodes, other)]
            ends[row, position] = max(below) + 1
        owners.append(owner)
    return ids, ends, owners


def path_of(nodes, node):
    path = []
    while node >= 0:
        path.append(node)
        node = nodes[node][0]
    return path


@given(trees(), st.integers(0, 99))
def test_a_token_of_a_tree_sees_its_path_and_nothing_else(rows, seed):
    ids, ends, owners = laid_out(rows)
    arrays = inputs(seed, *ids.shape)

    def sees(b, t):
        if t >= len(owners[b]):
            return [t]  # padding, where ends is 0
        path = path_of(rows[b], owners[b][t])
        return [s for s in range(t + 1) if owners[b][s] in path]

    out = ATTEND(*arrays, ids, ends)
    np.testing.assert_allclose(out, reference(*arrays, sees), atol=2e-6)


def test_packed_rows_agree_with_separate_ones():
    query, key, value = inputs(0, 1, 12)
    ids = jnp.asarray([[1] * 5 + [2] * 4 + [0] * 3])
    packed = ATTEND(query, key, value, ids)
    for first, end in ((0, 5), (5, 9)):
        alone = [array[:, first:end] for array in (query, key, value)]
        expected = reference(*alone, lambda _, t: list(range(t + 1)))
        np.testing.assert_allclose(packed[:, first:end], expected, atol=2e-6)
        np.testing.assert_allclose(packed[:, first:end], ATTEND(*alone), atol=1e-6)


@pytest.mark.parametrize("tree", [False, True])
def test_gradients_are_those_of_differences(tree):
    ids = jnp.asarray([[1, 1, 1, 1, 1, 2, 2, 0]])
    ends = jnp.asarray([[5, 5, 4, 4, 5, 7, 7, 0]]) if tree else None
    attend = jax.jit(lambda *arrays: XLA(*arrays, ids, ends))
    check_grads(attend, inputs(1, 1, 8), 1, ["rev"], atol=2e-2, rtol=2e-2)


def test_the_backward_pass_keeps_the_weights_in_the_dtype_of_the_activations():
    arrays = inputs(2, 2, LENGTH, dtype=jnp.bfloat16)
    out, backward = jax.vjp(ATTEND, *arrays)
    pairs = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape[-2:] == (LENGTH, LENGTH)]
    assert {(leaf.dtype.name, leaf.size) for leaf in pairs} == {("bfloat16", 2 * 4 * LENGTH**2)}
    exact, exact_backward = jax.vjp(ATTEND, *(array.astype(jnp.float32) for array in arrays))
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.02)
    found = backward(jnp.ones_like(out))
    for gradient, expected in zip(found, exact_backward(jnp.ones_like(exact)), strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(gradient.astype(jnp.float32), expected, atol=0.06)


@pytest.mark.parametrize(
    ("platform", "dtype", "length", "head_dim", "expected"),
    [
        ("cpu", "bfloat16", 2048, 128, "xla"),
        ("tpu", "bfloat16", 2048, 128, "splash"),
        ("tpu", "float32", 200, 64, "splash"),
        ("tpu", "float32", 100, 64, "xla"),
        ("tpu", "float16", 2048, 128, "xla"),
        ("gpu", "float32", 2048, 128, "xla"),
    ],
)
def test_default_backends(platform, dtype, length, head_dim, expected):
    assert default_backend(platform, dtype, length, head_dim) == expected


def test_a_backend_that_cannot_do_it_says_what_to_set():
    with pytest.raises(UserError, match=r'"cudnn": it computes in .*float32: set .*"xla"'):
        get_backend("cudnn")(*inputs(0, 1, 8))
    with pytest.raises(UserError, match=r'"splash": .*not in float16'):
        get_backend("splash")(*inputs(0, 1, 128, dtype=np.float16))


@pytest.mark.parametrize("kv_heads", [4, 3])
def test_kernels_get_the_rows_and_heads_of_their_device(kv_heads, monkeypatch):
    """Three KV heads are whole on each of four devices, whose query heads use some of them."""
    heads = {4: 8, 3: 12}[kv_heads]
    arrays = inputs(3, 4, 10, heads, kv_heads)
    ids = jnp.asarray(np.repeat([[1, 2, 0]], [4, 4, 2], axis=1).repeat(4, axis=0))
    ends = jnp.where(ids > 0, jnp.asarray([4, 4, 3, 4, 8, 7, 7, 8, 0, 0]), 0)
    shapes = []

    def kernel(query, *rest):
        shapes.append((query.shape[0], query.shape[2]))
        return BACKENDS["xla"](query, *rest)

    def total(attend, *arrays):
        out = attend(*arrays, ids, ends)
        return jnp.sum(jnp.sin(out)), out

    expected = jax.jit(jax.grad(partial(total, XLA), (0, 1, 2), has_aux=True))(*arrays)
    monkeypatch.setitem(backends.BACKENDS, "splash", kernel)
    mesh = make_mesh(MeshShape(data=1, fsdp=2, tensor=4))
    placed = jax.device_put(arrays, rules.rows_sharding(mesh))
    with use_mesh(mesh):
        found = jax.jit(jax.grad(partial(total, get_backend("splash")), (0, 1, 2), has_aux=True))(
            *placed
        )
    jax.tree.map(partial(np.testing.assert_allclose, atol=5e-6), found, expected)
    assert set(shapes) == {(2, heads // 4)}


def test_trees_go_through_the_model(tiny):
    """Branches laid out behind their trunk give the hidden states of separate rows."""
    config, params = tiny
    forward = jax.jit(apply, static_argnums=0)
    tokens = jnp.asarray([[7, 8, 9, 11, 12, 21, 22, 23]])  # trunk of 3, branches of 2 and of 3
    positions = jnp.asarray([[0, 1, 2, 3, 4, 3, 4, 5]])
    ends = jnp.asarray([[8, 8, 8, 5, 5, 8, 8, 8]])
    out = forward(config, params, tokens, positions, ends=ends)
    for branch in ([3, 4], [5, 6, 7]):
        own = np.array([0, 1, 2, *branch])
        alone = forward(config, params, tokens[:, own], positions[:, own])
        np.testing.assert_allclose(out[:, own], alone, atol=1e-5)
