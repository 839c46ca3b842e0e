"""What a step costs at least, by hand: floating-point operations and bytes of memory traffic.

FLOPs are those of matrix products, a multiply and an add each: 2 N a token forward, with N the
parameters of the layers' kernels, 2 D V for each position whose logits are needed, and the two
products of attention with the keys that a token sees. A backward pass costs twice the forward pass;
what remat computes again, norms, softmax, sampling and the optimizer are not counted. They are work
that has to be done, so that FLOPs / (chips x peak) is a bound from below on the time of a step.

Traffic is the bytes that one device has to move between its memory and the chip: weights,
gradients, optimizer state and KV cache. Activations and logits are not counted: how often they
leave the chip is up to the compiler. No real program reaches either bound.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from stair_jax.models.config import ModelConfig


@dataclass(frozen=True)
class Rows:
    """Rows of tokens that go through a model, each of one segment.

    Attributes:
      count: rows.
      length: tokens a row.
      logits: positions a row whose logits over the vocabulary are needed.
    """

    count: int
    length: int
    logits: int = 0


def layer_params(config: ModelConfig) -> int:
    """Parameters of the kernels of all layers: what a token is multiplied with."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = heads * config.head_dim * config.hidden_size
    mlp = 3 * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + mlp)


def forward_flops(config: ModelConfig, rows: Rows) -> int:
    """Of a forward pass over whole sequences."""
    tokens = rows.count * rows.length
    seen = rows.count * rows.length * (rows.length + 1) // 2  # a token sees itself too
    return (
        2 * layer_params(config) * tokens
        + _attention_flops(config, seen)
        + _logits_flops(config, rows.count * rows.logits)
    )


def training_flops(config: ModelConfig, rows: Rows) -> int:
    """Of forward and backward pass: 6 N a token, and three times the attention."""
    return 3 * forward_flops(config, rows)


def decode_flops(config: ModelConfig, slots: int, context: int, steps: int) -> int:
    """Of `steps` tokens in each slot, each of which sees `context` tokens."""
    tokens = slots * steps
    return (
        2 * layer_params(config) * tokens
        + _attention_flops(config, tokens * context)
        + _logits_flops(config, tokens)
    )


def _attention_flops(config: ModelConfig, seen: int) -> int:
    """Queries with keys, weights with values, for `seen` pairs of tokens in each layer."""
    width = config.num_attention_heads * config.head_dim
    return 4 * config.num_hidden_layers * width * seen


def _logits_flops(config: ModelConfig, positions: int) -> int:
    return 2 * config.vocab_size * config.hidden_size * positions


def local_bytes(arrays: Any) -> int:
    """Bytes that each device holds of a tree of arrays or their shapes, by their shardings."""
    return sum(
        np.dtype(leaf.dtype).itemsize * int(np.prod(_local_shape(leaf)))
        for leaf in jax.tree.leaves(arrays)
    )


def _local_shape(leaf: Any) -> tuple[int, ...]:
    sharding = getattr(leaf, "sharding", None)
    return leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)


def weights_traffic(config: ModelConfig, params: Any, head: bool = True) -> int:
    """Bytes a device to read the weights once, for one pass over any number of tokens.

    Where `fsdp` splits them, a device multiplies with the weights of its whole group. They are read
    in the dtype of the activations; of an embedding that is no head, a pass reads but a few rows.

    Args:
      config: of the model.
      params: shapes with their shardings.
      head: whether the pass needs logits.
    """
    read = {"layers": params["layers"], "final_norm": params["final_norm"]}
    if head:
        read["head"] = params["embedding" if config.tie_word_embeddings else "head"]
    itemsize = np.dtype(config.dtype).itemsize
    return sum(
        itemsize * int(np.prod(_local_shape(leaf))) * _gathered(leaf)
        for leaf in jax.tree.leaves(read)
    )


def served_traffic(config: ModelConfig, served: Any, head: bool = True) -> int:
    """`weights_traffic` of an engine's weights, which are read as they are.

    Args:
      config: of the model.
      served: shapes with their shardings.
      head: whether the pass needs logits.
    """
    read = [served.layers, served.final_norm]
    if head:
        read.append(served.embedding if config.tie_word_embeddings else served.head)
    return sum(local_bytes(leaf) * _gathered(leaf) for leaf in jax.tree.leaves(read))


def _gathered(leaf: Any) -> int:
    """How many devices of the axis `fsdp` share an array."""
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding):
        return 1
    split = any(axes == "fsdp" or "fsdp" in (axes or ()) for axes in sharding.spec)
    return sharding.mesh.shape["fsdp"] if split else 1


def training_traffic(config: ModelConfig, state: Any, passes: int, head: bool = True) -> int:
    """Bytes a device of a training step of `passes` micro-batches.

    A micro-batch reads the weights forward and backward, and adds its gradients (float32) to the
    sum: one read and one write. The update reads the sum, and reads and writes parameters and
    moments.

    Args:
      config: of the model.
      state: a TrainState of shapes with their shardings; its parameters are those of the model, or
        {"model": those, ...}.
      passes: micro-batches.
      head: as in `weights_traffic`.
    """
    model = state.params.get("model", state.params)
    gradients = sum(4 * int(np.prod(_local_shape(leaf))) for leaf in jax.tree.leaves(state.params))
    each = 2 * weights_traffic(config, model, head) + 2 * gradients
    return passes * each + gradients + 2 * local_bytes(state)
