"""Tensors of a Hugging Face checkpoint: names, shapes, and the parameters that hold them."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import KERNELS

HEAD = "lm_head.weight"
SCORE = "score.weight"
# Constants that old checkpoints store as tensors, although they follow from config.json.
IGNORED_SUFFIX = ".rotary_emb.inv_freq"
# Rows per block of a transposed copy: enough to fill cache lines, few enough to stay in cache.
_ROWS_IN_CACHE = 16

_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")

Index = tuple[slice, ...]
# A parameter and its shape in the checkpoint.
_Part = tuple[str, tuple[int, ...]]


class Tensor(NamedTuple):
    """One tensor of a checkpoint, or the rows of one that a parameter holds.

    Attributes:
        parameter: name of the parameter that holds it; "" if several do.
        layer: index along the leading axis of a parameter of `layers`, or None.
        shape: shape in the checkpoint. Hugging Face stores matrices as [outputs, inputs].
        first_row: of a part, index of its first row in the checkpoint's tensor.
        joined: the parts of a tensor that several parameters hold, in the order of its rows.
    """

    parameter: str
    layer: int | None
    shape: tuple[int, ...]
    first_row: int = 0
    joined: tuple["Tensor", ...] = ()

    @property
    def parts(self) -> tuple["Tensor", ...]:
        """What one parameter each holds, in the order of the rows."""
        return self.joined or (self,)


def tensors(config: ModelConfig, with_head: bool = True) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    Args:
        config: the model config.
        with_head: whether to include the head of an untied model.
    """
    embed = config.hidden_size
    vocabulary = (config.vocab_size, embed)
    layer = _layer_tensors(config)
    found = {"model.embed_tokens.weight": Tensor("embedding", None, vocabulary)}
    for index in range(config.num_hidden_layers):
        for name, parts in layer.items():
            found[f"model.layers.{index}.{name}"] = _join(index, parts)
    found["model.norm.weight"] = Tensor("final_norm", None, (embed,))
    if with_head and not config.tie_word_embeddings:
        found[HEAD] = Tensor("head", None, vocabulary)
    return found


def num_layers(names: Iterable[str]) -> int:
    """How many layers the tensors of a checkpoint are of, by their names."""
    found = (_LAYER.match(name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def kernel_modules(config: ModelConfig) -> dict[str, tuple[_Part, ...]]:
    """The linear modules of a layer, such as mlp.up_proj, and the kernels that each holds.

    Returns:
        for each, its kernels with their shapes [outputs, inputs], in the order of its rows.
    """
    return {
        name.removesuffix(".weight"): parts
        for name, parts in _layer_tensors(config).items()
        if parts[0][0] in KERNELS
    }


def _join(layer: int, parts: Sequence[_Part]) -> Tensor:
    """The tensor of a layer whose rows are those of the parts, one below the other."""
    rows = [shape[0] for _, shape in parts]
    tensors = [
        Tensor(parameter, layer, shape, sum(rows[:place]))
        for place, (parameter, shape) in enumerate(parts)
    ]
    if len(tensors) == 1:
        return tensors[0]
    return Tensor("", layer, (sum(rows), *tensors[0].shape[1:]), joined=tuple(tensors))


def _layer_tensors(config: ModelConfig) -> dict[str, tuple[_Part, ...]]:
    """Parameters and their shapes in each tensor of one layer, by name suffix."""
    embed, mlp, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    queries = config.num_attention_heads * head_dim
    keys = config.num_key_value_heads * head_dim
    query: _Part = ("query", (queries, embed))
    key: _Part = ("key", (keys, embed))
    value: _Part = ("value", (keys, embed))
    gate: _Part = ("gate", (mlp, embed))
    up: _Part = ("up", (mlp, embed))
    norm: _Part = ("attention_norm", (embed,))
    found: dict[str, tuple[_Part, ...]] = {"input_layernorm.weight": (norm,)}
    if config.has_joined_tensors:
        found["self_attn.qkv_proj.weight"] = (query, key, value)
    else:
        found |= {
            "self_attn.q_proj.weight": (query,),
            "self_attn.k_proj.weight": (key,),
            "self_attn.v_proj.weight": (value,),
        }
    found |= {
        "self_attn.o_proj.weight": (("out", (embed, queries)),),
        "post_attention_layernorm.weight": (("mlp_norm", (embed,)),),
    }
    if config.has_joined_tensors:
        found["mlp.gate_up_proj.weight"] = (gate, up)
    else:
        found |= {"mlp.gate_proj.weight": (gate,), "mlp.up_proj.weight": (up,)}
    found["mlp.down_proj.weight"] = (("down", (embed, mlp)),)
    if config.qkv_bias:
        found |= {
            "self_attn.q_proj.bias": (("query_bias", (queries,)),),
            "self_attn.k_proj.bias": (("key_bias", (keys,)),),
            "self_attn.v_proj.bias": (("value_bias", (keys,)),),
        }
    if config.qk_norm:
        found |= {
            "self_attn.q_norm.weight": (("query_norm", (head_dim,)),),
            "self_attn.k_norm.weight": (("key_norm", (head_dim,)),),
        }
    return found


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes by parameter name; those of layers are without the leading axis of layers."""
    embed, mlp, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    return {
        "embedding": (config.padded_vocab_size, embed),
        "final_norm": (embed,),
        "head": (config.padded_vocab_size, embed),
        "attention_norm": (embed,),
        "query": (embed, heads, head_dim),
        "key": (embed, kv_heads, head_dim),
        "value": (embed, kv_heads, head_dim),
        "out": (heads, head_dim, embed),
        "mlp_norm": (embed,),
        "gate": (embed, mlp),
        "up": (embed, mlp),
        "down": (mlp, embed),
        "query_bias": (heads, head_dim),
        "key_bias": (kv_heads, head_dim),
        "value_bias": (kv_heads, head_dim),
        "query_norm": (head_dim,),
        "key_norm": (head_dim,),
    }


def stored_index(tensor: Tensor, shape: tuple[int, ...], index: Index) -> Index:
    """Maps a block of a parameter to the corresponding block of the checkpoint's tensor.

    Args:
        tensor: the tensor.
        shape: shape of the parameter (of one layer).
        index: the block in the parameter. An axis that the checkpoint merges with the one before it
            (head_dim with heads) must be whole.

    Returns:
        The block in the tensor (or in its rows that are this part), without rows of a padded
        vocabulary that the tensor lacks.
    """
    if tensor.layer is None:
        return tuple(
            slice(*axis.indices(size)) for axis, size in zip(index, tensor.shape, strict=True)
        )
    axes = [(size, *axis.indices(size)[:2]) for size, axis in zip(shape, index, strict=True)]
    found = []
    # The checkpoint's matrix is the transpose, with adjacent axes of the parameter merged: walk its
    # axes backwards and merge until the size fits.
    for size in reversed(tensor.shape):
        joined, start, stop = axes.pop(0)
        while joined < size:
            inner, first, last = axes.pop(0)
            assert (first, last) == (0, inner), f"{tensor.parameter} is split along a joined axis"
            joined, start, stop = joined * inner, start * inner, stop * inner
        found.append(slice(start, stop))
    return tuple(reversed(found))


def stored_view(values: np.ndarray, tensor: Tensor, stored: Index) -> np.ndarray:
    """Views a block of a parameter as the block `stored` of the checkpoint's tensor.

    Args:
        values: the block of the parameter.
        tensor: the tensor.
        stored: the block in the tensor, from `stored_index`.

    Returns:
        A view to read from or write to: matrices transposed, heads merged, padding left out.
    """
    shape = tuple(axis.stop - axis.start for axis in stored)
    if tensor.layer is None:
        return values[: shape[0]]
    assert values.size == math.prod(shape)
    return values.reshape(shape[::-1]).T


def copy_rows(target: np.ndarray, values: np.ndarray) -> None:
    """`target[...] = values`, several times faster if `target` is a transposed view."""
    for start in range(0, len(values), _ROWS_IN_CACHE):
        strip = slice(start, start + _ROWS_IN_CACHE)
        target[strip] = values[strip]
