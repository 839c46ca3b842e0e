import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.models.cache import Cache, empty_cache, write
from stair_jax.models.transformer import apply, logical_axes, prefill
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh

forward = jax.jit(apply, static_argnums=0)


def noise(rng, config, batch, length):
    """A cache full of what former requests left."""
    empty = empty_cache(config, batch, length)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), empty)


def test_prefill_in_pieces_and_decoding_equal_the_uncached_forward(tiny):
    config, params = tiny
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 40, (3, 12))
    positions = np.tile(np.arange(12), (3, 1))
    expected, _ = forward(config, params, tokens, positions)
    cache, found = noise(rng, config, 3, 16), []
    for start, stop in ((0, 5), (5, 10), (10, 11), (11, 12)):
        piece = slice(start, stop)
        hidden, cache = forward(config, params, tokens[:, piece], positions[:, piece], cache=cache)
        found.append(hidden)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=2e-5)


def test_rows_stand_at_positions_of_their_own(tiny):
    config, params = tiny
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 40, (3, 12))
    expected, _ = forward(config, params, tokens, np.tile(np.arange(12), (3, 1)))
    starts = np.array([2, 7, 5])
    cache = noise(rng, config, 3, 16)
    prefix = np.where(np.arange(7) < starts[:, None], np.arange(7), 16)  # 16 is written nowhere
    _, cache = forward(config, params, tokens[:, :7], prefix, cache=cache)
    positions = starts[:, None] + np.arange(4)
    hidden, _ = forward(
        config, params, np.take_along_axis(tokens, positions, 1), positions, cache=cache
    )
    np.testing.assert_allclose(
        hidden, np.take_along_axis(np.asarray(expected), positions[..., None], 1), atol=2e-5
    )


def test_positions_beyond_the_cache_are_dropped():
    slots = jnp.zeros((2, 4, 1, 1))
    new = jnp.arange(1.0, 7.0).reshape(2, 3, 1, 1)
    written = write(slots, new, jnp.array([[2, 3, 4], [9, 0, 4]]))
    assert written[:, :, 0, 0].tolist() == [[0, 0, 1, 2], [5, 0, 0, 0]]


@pytest.mark.parametrize("length", [1, 4])
def test_a_row_has_the_same_bits_wherever_it_stands_and_whatever_stands_beside_it(tiny, length):
    config, params = tiny  # 64 rows, as an engine has: the last of an odd number may differ
    rng = np.random.default_rng(2)
    cache = noise(rng, config, 64, 16)
    tokens = rng.integers(0, 40, (64, length))
    positions = rng.integers(0, 12, (64, 1)) + np.arange(length)
    hidden, written = forward(config, params, tokens, positions, cache=cache)
    for row, moved in ((0, 63), (17, 8), (63, 3)):
        others, other_tokens = noise(rng, config, 64, 16), rng.integers(0, 40, (64, length))
        other_positions = rng.integers(0, 12, (64, 1)) + np.arange(length)
        other_tokens[moved], other_positions[moved] = tokens[row], positions[row]
        others = jax.tree.map(lambda o, c, m=moved, r=row: o.at[m].set(c[r]), others, cache)
        again, rewritten = forward(config, params, other_tokens, other_positions, cache=others)
        np.testing.assert_array_equal(again[moved], hidden[row])
        jax.tree.map(
            lambda new, old, m=moved, r=row: np.testing.assert_array_equal(new[m], old[r]),
            rewritten,
            written,
        )


def test_a_decoding_loop_updates_the_donated_cache_in_place(tiny):
    config, params = tiny

    @partial(jax.jit, donate_argnums=0)
    def decode(cache, params, token, position):
        def step(carry):
            cache, token, position = carry
            hidden, cache = apply(config, params, token, position, cache=cache)
            token = jnp.argmax(hidden @ params["head"].T, axis=-1)
            return cache, token, position + 1

        return jax.lax.while_loop(lambda s: s[2][0, 0] < 60, step, (cache, token, position))

    cache = empty_cache(config, 64, 64)
    start = jnp.zeros((64, 1), jnp.int32)
    compiled = decode.lower(cache, params, start, start).compile()
    cache_bytes = sum(array.nbytes for array in jax.tree.leaves(cache))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= cache_bytes
    assert memory.temp_size_in_bytes < cache_bytes / 2
    assert not re.findall(r"= f32\[64,64,2,10\]\S* copy\(", compiled.as_text())
    cache, _, position = compiled(cache, params, start, start)
    assert isinstance(cache, Cache) and int(position[0, 0]) == 60


@pytest.mark.parametrize(
    ("shape", "shard_kv_heads"),
    [(MeshShape(4, 1, 2), True), (MeshShape(2, 1, 4), False), (MeshShape(8, 1, 1), True)],
    ids=["split heads", "whole KV heads", "rows"],
)
def test_on_a_mesh_a_decoding_step_leaves_the_cache_where_it_is(tiny, shape, shard_kv_heads):
    config, params = dataclasses.replace(tiny[0], shard_kv_heads=shard_kv_heads), tiny[1]
    rng = np.random.default_rng(3)
    cache = noise(rng, config, 8, 16)
    tokens, positions = rng.integers(0, 40, (8, 1)), rng.integers(0, 16, (8, 1))
    expected, written = forward(config, params, tokens, positions, cache=cache)

    mesh = make_mesh(shape)
    kv_axis = "activation_kv_heads" if shard_kv_heads else "activation_kv_heads_whole"
    axes = jax.P("batch", "cache_length", kv_axis, "head_dim")
    params = jax.device_put(params, rules.shardings(logical_axes(config), mesh))
    cache = jax.device_put(cache, rules.shardings(axes, mesh))
    tokens, positions = jax.device_put((tokens, positions), rules.rows_sharding(mesh))
    with use_mesh(mesh):
        compiled = forward.lower(config, params, tokens, positions, cache=cache).compile()
    hidden, on_mesh = compiled(params, tokens, positions, cache=cache)
    np.testing.assert_allclose(hidden, expected, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), on_mesh, written)
    for leaf in jax.tree.leaves(on_mesh):
        assert leaf.sharding.is_equivalent_to(cache.keys[0].sharding, leaf.ndim)
    exchanges = r"(all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\("
    found = set(re.findall(exchanges, compiled.as_text()))
    assert found == (set() if shape.tensor == 1 else {"all-reduce"})


def test_prefill_is_a_call_with_an_empty_cache(tiny):
    config, params = tiny
    tokens = np.random.default_rng(6).integers(0, config.vocab_size, (3, 7))
    positions = jnp.broadcast_to(jnp.arange(7), tokens.shape)
    hidden, cache = jax.jit(prefill, static_argnums=0)(config, params, tokens, positions)
    expected = apply(config, params, tokens, positions, None, empty_cache(config, 3, 7))
    assert len(cache.keys) == config.num_hidden_layers
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), (hidden, cache), expected)
