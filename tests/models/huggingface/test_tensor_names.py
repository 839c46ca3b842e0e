"""Blocks of parameters and of checkpoint tensors."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import load_config, tensor_names
from stair_jax.models.transformer import init_params


def test_names_and_shapes_are_those_of_transformers(family):
    folder, model = family
    config = load_config(folder)
    expected = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    if config.tie_word_embeddings:
        del expected[tensor_names.HEAD]
    found = tensor_names.tensors(config)
    assert {name: tensor.shape for name, tensor in found.items()} == expected
    assert tensor_names.HEAD not in tensor_names.tensors(config, with_head=False)


def test_every_parameter_of_the_model_has_its_tensors(family):
    config = load_config(family[0])
    shapes = tensor_names.parameter_shapes(config)
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    layers = params.pop("layers")
    tensors = [part for tensor in tensor_names.tensors(config).values() for part in tensor.parts]
    assert {t.parameter for t in tensors if t.layer is None} == params.keys()
    for index in range(config.num_hidden_layers):
        assert {t.parameter for t in tensors if t.layer == index} == layers.keys()
    for name, parameter in params.items():
        assert parameter.shape == shapes[name]
    for name, parameter in layers.items():
        assert parameter.shape[1:] == shapes[name]


CONFIGS = [
    ModelConfig(13, 6, 10, 1, 4, 2, 8, vocab_multiple=8),
    ModelConfig(13, 6, 10, 1, 4, 1, 8, vocab_multiple=8, model_type="qwen2"),
    ModelConfig(16, 6, 10, 1, 1, 1, 2, model_type="qwen3"),
    ModelConfig(13, 6, 10, 1, 4, 2, 8, model_type="phi3"),
]
# The checkpoint merges head_dim with the heads, so no mesh may split it.
WHOLE_AXIS = {"query": 2, "key": 2, "value": 2, "out": 1}
WHOLE_AXIS |= {"query_bias": 1, "key_bias": 1, "value_bias": 1}


def test_parts_of_a_joined_tensor_are_its_rows_without_gaps():
    found = tensor_names.tensors(CONFIGS[-1])
    for name, parameters in (
        ("self_attn.qkv_proj.weight", ["query", "key", "value"]),
        ("mlp.gate_up_proj.weight", ["gate", "up"]),
    ):
        tensor = found[f"model.layers.0.{name}"]
        assert [part.parameter for part in tensor.parts] == parameters
        row = 0
        for part in tensor.parts:
            assert (part.first_row, part.shape[1:]) == (row, tensor.shape[1:])
            row += part.shape[0]
        assert row == tensor.shape[0]


@given(st.data())
def test_a_block_of_a_parameter_is_a_block_of_its_tensor(data):
    config = data.draw(st.sampled_from(CONFIGS))
    whole_tensor = data.draw(st.sampled_from(list(tensor_names.tensors(config).values())))
    tensor = data.draw(st.sampled_from(whole_tensor.parts))
    shape = tensor_names.parameter_shapes(config)[tensor.parameter]
    values = 1 + np.arange(np.prod(whole_tensor.shape)).reshape(whole_tensor.shape)
    stored = values[tensor.first_row : tensor.first_row + tensor.shape[0]]
    assert stored.shape == tensor.shape
    if tensor.layer is None:
        whole = np.zeros(shape, int)
        whole[: len(stored)] = stored
    else:
        whole = stored.T.reshape(shape)
    index = []
    for axis, size in enumerate(shape):
        start, stop = 0, size
        if axis != WHOLE_AXIS.get(tensor.parameter):
            start = data.draw(st.integers(0, size - 1))
            stop = data.draw(st.integers(start + 1, size))
        index.append(slice(start, stop))

    block = np.zeros_like(whole[tuple(index)])
    place = tensor_names.stored_index(tensor, shape, tuple(index))
    view = tensor_names.stored_view(block, tensor, place)
    tensor_names.copy_rows(view, stored[place])
    np.testing.assert_array_equal(block, whole[tuple(index)])
