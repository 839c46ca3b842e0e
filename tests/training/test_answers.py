"""Greedy answers in training against one token after another by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.models import transformer
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training.answers import greedy_answers

PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7, 9, 3]]
LENGTH = 14


@partial(jax.jit, static_argnums=0)
def most_probable(config, params, tokens, last):
    """The most probable token behind position `last` of [1, LENGTH] tokens."""
    hidden = transformer.apply(config, params, tokens, jnp.arange(LENGTH)[None])
    logits = hidden[0, last] @ transformer.output_embedding(params, config).T
    return jnp.argmax(logits[: config.vocab_size])


def by_hand(config, params, prompt, stops):
    """The most probable token of the whole sequence so far, again and again."""
    ids = list(prompt)
    while len(ids) < LENGTH:
        tokens = np.array([ids + [0] * (LENGTH - len(ids))])  # what follows is not seen
        ids.append(int(most_probable(config, params, tokens, len(ids) - 1)))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("shape", [MeshShape(), MeshShape(fsdp=2, tensor=2)])
def test_each_prompt_is_continued_by_its_own_most_probable_tokens(config, params, shape):
    mesh = make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])
    free = [by_hand(config, params, prompt, ()) for prompt in PROMPTS]
    assert [len(answer) for answer in free] == [LENGTH - len(prompt) for prompt in PROMPTS]
    stop = free[0][3]  # of the first answer, and maybe of others
    expected = [by_hand(config, params, prompt, {stop}) for prompt in PROMPTS]
    assert expected[0][-1] == stop
    found = greedy_answers(config, params, PROMPTS, LENGTH, {stop, 1000}, mesh)
    assert found == expected


def test_the_prompts_and_other_rows_are_left_as_they_are(config, params):
    """A row of full length has no answer."""
    full = list(np.arange(LENGTH) % 7)
    found = greedy_answers(config, params, [full, PROMPTS[1]], LENGTH, (), make_mesh())
    assert found[0] == []
    assert found[1] == by_hand(config, params, PROMPTS[1], ())
