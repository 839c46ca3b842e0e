"""Masked vocabulary padding in losses and samplers, and the scalar head."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, request_key
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head, mask_padding, score
from stair_jax.models.transformer import apply, init_params, output_embedding
from stair_jax.training.logps import token_logps


def test_score_is_the_product_at_the_index():
    hidden = np.arange(12.0).reshape(2, 3, 2)
    head = {"kernel": jnp.array([1.0, -2.0])}
    assert score(jnp.array(hidden), head, jnp.array([2, 0])).tolist() == [4 - 10, 6 - 14]


def test_score_of_bfloat16_states_is_summed_in_float32():
    hidden = jnp.ones((1, 1, 1000), jnp.bfloat16)
    head = {"kernel": jnp.full(1000, 1.0)}
    assert score(hidden, head, jnp.array([0])).tolist() == [1000.0]


def test_a_new_head_is_small_and_depends_on_the_key():
    config = ModelConfig(32, 4000, 8, 1, 4, 2, 8)
    first, second = (init_score_head(config, jax.random.key(i))["kernel"] for i in range(2))
    assert first.shape == (4000,) and abs(float(first.std()) / 0.02 - 1) < 0.1
    assert not np.array_equal(first, second)


def test_padding_is_masked_and_costs_nothing_where_there_is_none():
    logits = jnp.arange(6.0).reshape(2, 3)
    assert mask_padding(logits, 2).tolist() == [[0, 1, -jnp.inf], [3, 4, -jnp.inf]]
    assert mask_padding(logits, 3) is logits


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def models(request):
    """(config, parameters) of a random model, without and with vocabulary padding."""
    plain = ModelConfig(
        *(41, 32, 48, 1, 4, 2, 8), initializer_range=0.3, tie_word_embeddings=request.param
    )
    configs = plain, dataclasses.replace(plain, vocab_multiple=64)
    return [(config, init_params(config, jax.random.key(1))) for config in configs]


def test_padding_rows_are_zeros_and_the_others_are_the_same(models):
    (_, plain), (config, padded) = models
    for name in ("embedding", "head"):
        if name in plain:
            rows = padded[name]
            assert rows.shape == (64, 32) and not rows[config.vocab_size :].any()
            np.testing.assert_array_equal(rows[:41], plain[name])
    jax.tree.map(np.testing.assert_array_equal, plain["layers"], padded["layers"])


def test_padding_changes_no_log_probability_and_no_gradient(models):
    num_chunks = 1 if models[0][0].tie_word_embeddings else 3
    tokens = np.random.default_rng(0).integers(0, 41, (2, 10))
    positions = np.tile(np.arange(10), (2, 1))

    @partial(jax.jit, static_argnums=0)
    @partial(jax.grad, argnums=1, has_aux=True)
    def gradients(config, params):
        hidden = apply(config, params, tokens, positions)
        head = output_embedding(params, config)
        logps = token_logps(hidden, head, jnp.array(tokens), num_chunks, config.vocab_size)
        return jnp.sum(jnp.sin(logps)), logps

    (plain, expected), (padded, logps) = (gradients(*model) for model in models)
    np.testing.assert_allclose(logps, expected, atol=1e-5)
    for name in ("embedding", "head"):
        if name in plain:
            assert not padded[name][41:].any()
            padded[name] = padded[name][:41]
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), padded, plain)


def test_padding_changes_no_sample_and_no_score(models):
    # Top-k, no limits, top-p: each path of the sampler.
    samplings = [
        Sampling(temperature=0.0, max_tokens=8),
        Sampling(temperature=2.0, top_k=50, top_p=0.9, max_tokens=8),
        Sampling(temperature=2.0, max_tokens=8),
        Sampling(temperature=2.0, top_p=0.99, max_tokens=8),
    ]
    rng = np.random.default_rng(1)
    requests = [
        Request(index, tuple(rng.integers(0, 41, 5)), sampling=sampling, key=request_key(0, index))
        for index, sampling in enumerate(samplings * 4)
    ]
    requests.append(Request("score", (3, 4, 5), score_ids=(0, 7, 40)))
    plain, padded = (
        run_all(
            Engine(config, params, num_slots=8, max_length=16, prefill_rows=4, steps_per_call=8),
            requests,
        )
        for config, params in models
    )
    for request in requests:
        assert padded[request.id].tokens == plain[request.id].tokens
        np.testing.assert_allclose(padded[request.id].logps, plain[request.id].logps, atol=1e-5)
        np.testing.assert_allclose(padded[request.id].scores, plain[request.id].scores, atol=1e-5)
