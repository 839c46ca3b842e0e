"""Fitting a config to a mesh."""

import dataclasses

import pytest

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh

CONFIG = ModelConfig(50, 24, 48, 1, 8, 2, 4)


def test_one_device_changes_nothing():
    assert fit_to_mesh(CONFIG, make_mesh()) == CONFIG


def test_the_vocabulary_is_padded_and_kv_heads_are_split_where_they_can_be(capsys):
    fitted = fit_to_mesh(CONFIG, make_mesh(MeshShape(fsdp=4, tensor=2)), vocab_multiple=16)
    assert (fitted.vocab_size, fitted.padded_vocab_size) == (50, 64)
    assert fitted.shard_kv_heads
    assert capsys.readouterr().err == ""


def test_too_few_kv_heads_are_whole_and_that_is_said(capsys):
    fitted = fit_to_mesh(CONFIG, make_mesh(MeshShape(tensor=4)), vocab_multiple=4)
    assert not fitted.shard_kv_heads
    assert "num_key_value_heads 2 is not a multiple of tensor 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"num_attention_heads": 6}, {"tensor": 4}, "num_attention_heads 6 .* over tensor 4"),
        ({"intermediate_size": 50}, {"tensor": 4}, "intermediate_size 50 .* over tensor 4"),
        ({"hidden_size": 28}, {"fsdp": 8}, "hidden_size 28 .* over fsdp 8"),
        ({}, {"tensor": 4}, "vocabulary of 50 .* runtime.vocab_multiple .* of 4, such as 128"),
    ],
)
def test_what_the_mesh_cannot_split_is_named(changes, shape, message):
    with pytest.raises(UserError, match=message):
        fit_to_mesh(dataclasses.replace(CONFIG, **changes), make_mesh(MeshShape(**shape)))
