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
    tensors = list(tensor_names.tensors(config).values())
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
]
# The checkpoint merges head_dim with the heads, so no mesh may split it.
WHOLE_AXIS = {"query": 2, "key": 2, "value": 2, "out": 1}
WHOLE_AXIS |= {"query_bias": 1, "key_bias": 1, "value_bias": 1}


@given(st.data())
def test_a_block_of_a_parameter_is_a_block_of_its_tensor(data):
    config = data.draw(st.sampled_from(CONFIGS))
    tensor = data.draw(st.sampled_from(list(tensor_names.tensors(config).values())))
    shape = tensor_names.parameter_shapes(config)[tensor.parameter]
    stored = 1 + np.arange(np.prod(tensor.shape)).reshape(tensor.shape)
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
