"""Names and shapes of Llama's tensors in a Hugging Face checkpoint, and where they go."""

from typing import Any, NamedTuple

import numpy as np

from stair_jax.models.config import ModelConfig

HEAD = "lm_head.weight"
SCORE = "score.weight"
# Constants that old checkpoints hold as tensors; they follow from config.json.
IGNORED_SUFFIX = ".rotary_emb.inv_freq"


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        parameter: name of the parameter that holds it.
        layer: its index along the leading axis of a parameter of `layers`, or None.
        shape: in the checkpoint. Hugging Face stores matrices as [outputs, inputs].
    """

    parameter: str
    layer: int | None
    shape: tuple[int, ...]


def tensors(config: ModelConfig, with_head: bool = True) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; `with_head` False leaves an untied head out."""
    embed, mlp = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = {
        "input_layernorm": ("attention_norm", (embed,)),
        "self_attn.q_proj": ("query", (queries, embed)),
        "self_attn.k_proj": ("key", (keys, embed)),
        "self_attn.v_proj": ("value", (keys, embed)),
        "self_attn.o_proj": ("out", (embed, queries)),
        "post_attention_layernorm": ("mlp_norm", (embed,)),
        "mlp.gate_proj": ("gate", (mlp, embed)),
        "mlp.up_proj": ("up", (mlp, embed)),
        "mlp.down_proj": ("down", (embed, mlp)),
    }
    vocabulary = (config.vocab_size, embed)
    found = {"model.embed_tokens.weight": Tensor("embedding", None, vocabulary)}
    for index in range(config.num_hidden_layers):
        for name, (parameter, shape) in layer.items():
            found[f"model.layers.{index}.{name}.weight"] = Tensor(parameter, index, shape)
    found["model.norm.weight"] = Tensor("final_norm", None, (embed,))
    if with_head and not config.tie_word_embeddings:
        found[HEAD] = Tensor("head", None, vocabulary)
    return found


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of one layer's parameters, without the leading axis."""
    embed, mlp, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    return {
        "attention_norm": (embed,),
        "query": (embed, heads, head_dim),
        "key": (embed, kv_heads, head_dim),
        "value": (embed, kv_heads, head_dim),
        "out": (heads, head_dim, embed),
        "mlp_norm": (embed,),
        "gate": (embed, mlp),
        "up": (embed, mlp),
        "down": (mlp, embed),
    }


def empty_layers(config: ModelConfig) -> dict[str, np.ndarray]:
    """Arrays for the stacked parameters, to be filled by `put`."""
    return {
        name: np.empty((config.num_hidden_layers, *shape), config.param_dtype)
        for name, shape in parameter_shapes(config).items()
    }


def put(params: dict[str, Any], tensor: Tensor, values: np.ndarray, dtype: str) -> None:
    """Stores the values of a checkpoint's tensor where the model has them."""
    if tensor.layer is None:
        params[tensor.parameter] = values.astype(dtype)
    else:
        target = params["layers"][tensor.parameter][tensor.layer]
        target[...] = values.T.reshape(target.shape)


def get(params: dict[str, Any], tensor: Tensor) -> np.ndarray:
    """The inverse of `put`: the tensor of a checkpoint from (host) parameters."""
    if tensor.layer is None:
        return np.asarray(params[tensor.parameter])
    values = np.asarray(params["layers"][tensor.parameter][tensor.layer])
    return values.reshape(tensor.shape[::-1]).T
