"""What a step costs at least, by hand: bytes of memory traffic (operations: models/flops.py).

Traffic is the bytes that one device has to move between its memory and the chip: weights,
gradients, optimizer state and KV cache. Activations and logits are not counted: how often they
leave the chip is up to the compiler. No real program reaches this bound, nor that of its FLOPs.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from stair_jax.models.config import ModelConfig


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
