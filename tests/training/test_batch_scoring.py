"""Log-probabilities and scores of padded batches, against logits of one sequence at a time."""

import jax
import numpy as np
import pytest

from stair_jax.data.padding import pad
from stair_jax.models.heads import init_score_head
from stair_jax.models.transformer import apply, output_embedding
from stair_jax.training.batch_scoring import batch_logps, batch_scores

FORWARD = jax.jit(apply, static_argnums=0)


@pytest.fixture
def examples(make_groups):
    return [group.examples[0] for group in make_groups(3)]


def hidden_of(config, params, example):
    """`[length, D]` of the sequence alone."""
    tokens = np.zeros((1, 16), np.int32)  # what comes behind it is never seen
    tokens[0, : len(example)] = example.tokens
    hidden = FORWARD(config, params, tokens, np.arange(16)[None])
    return np.asarray(hidden)[0, : len(example)]


def test_log_probabilities_are_those_of_each_sequence_alone(config, params, examples):
    batch = pad(examples, 16)
    found = np.asarray(batch_logps(config, params, batch))
    assert found.shape == (3, 16) and (found[batch["weights"] == 0] == 0).all()
    for row, example in zip(found, examples, strict=True):
        logits = hidden_of(config, params, example) @ np.asarray(output_embedding(params, config)).T
        logps = np.asarray(jax.nn.log_softmax(logits))
        expected = [
            logps[place - 1, token] * counts
            for place, (token, counts) in enumerate(
                zip(example.tokens, example.loss_mask, strict=True)
            )
            if place
        ]
        np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-4)


def test_scores_are_read_at_the_last_token_of_each_sequence(config, params, examples):
    head = init_score_head(config, jax.random.key(1))
    found = batch_scores(config, {"model": params, "score": head}, pad(examples, 16))
    expected = [hidden_of(config, params, e)[-1] @ np.asarray(head["kernel"]) for e in examples]
    np.testing.assert_allclose(found, expected, atol=1e-4)
