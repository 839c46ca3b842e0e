"""Analytic lower bounds of memory traffic per step, for a roofline (FLOPs: models/flops.py).

Traffic is the number of bytes that one device has to move between its memory and its compute units:
weights, gradients, optimizer state and KV cache. Activations and logits are not counted, as it is
up to the compiler how often they leave the chip. Real programs reach neither this bound nor that of
their FLOPs. Worked out by hand because XLA's cost analysis counts the body of a scan only once.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from stair_jax.models.base_quantization import is_quantized
from stair_jax.models.config import ModelConfig
from stair_jax.training.optimizers.host_memory import is_pinned


def local_bytes(arrays: Any) -> int:
    """Bytes per device of a pytree of arrays (or shapes), by their shardings.

    Those in the memory of the host do not count; see `host_bytes`.
    """
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(arrays) if not is_pinned(leaf))


def host_bytes(arrays: Any) -> int:
    """Bytes of host memory per device of those arrays that are there."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(arrays) if is_pinned(leaf))


def _bytes(leaf: Any) -> int:
    return np.dtype(leaf.dtype).itemsize * int(np.prod(_local_shape(leaf)))


def _local_shape(leaf: Any) -> tuple[int, ...]:
    sharding = getattr(leaf, "sharding", None)
    return leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)


def weights_traffic(config: ModelConfig, params: Any, head: bool = True) -> int:
    """Bytes per device to read the weights once: one forward pass over any number of tokens.

    Weights that `fsdp` splits are all-gathered, so each device reads those of its whole fsdp group.
    They count in the dtype of the activations, in which they are used; quantized kernels as they
    are stored. The input embedding is not counted: a pass reads only some of its rows.

    Args:
      config: of the model.
      params: parameters as shapes with shardings.
      head: whether the pass computes logits.
    """
    read = {"layers": params["layers"], "final_norm": params["final_norm"]}
    if head:
        read["head"] = params["embedding" if config.tie_word_embeddings else "head"]
    itemsize = np.dtype(config.dtype).itemsize
    return sum(
        (np.dtype(leaf.dtype).itemsize if is_quantized(path[-1].key) else itemsize)
        * int(np.prod(_local_shape(leaf)))
        * _gathered(leaf)
        for path, leaf in jax.tree.leaves_with_path(read)
    )


def fused_traffic(config: ModelConfig, fused: Any, head: bool = True) -> int:
    """`weights_traffic` for an engine's weights, which are read in their stored dtype.

    Args:
      config: of the model.
      fused: shapes with shardings.
      head: whether the pass computes logits.
    """
    read = [fused.layers, fused.final_norm]
    if head:
        read.append(fused.embedding if config.tie_word_embeddings else fused.head)
    return sum(local_bytes(leaf) * _gathered(leaf) for leaf in jax.tree.leaves(read))


def _gathered(leaf: Any) -> int:
    """Number of devices over which `fsdp` splits an array; 1 if it does not."""
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding):
        return 1
    split = any(axes == "fsdp" or "fsdp" in (axes or ()) for axes in sharding.spec)
    return sharding.mesh.shape["fsdp"] if split else 1


def training_traffic(
    config: ModelConfig, state: Any, passes: int, head: bool = True, frozen: Any = None
) -> int:
    """Bytes per device of a training step of `passes` micro-batches.

    A micro-batch reads the weights twice (forward and backward), and reads and writes the sum of
    the float32 gradients. The update reads the sum, and reads and writes parameters and moments.

    Args:
      config: of the model.
      state: a TrainState of shapes with shardings; its parameters are those of the model, or a
        dict {"model": those, ...}.
      passes: number of micro-batches.
      head: as in `weights_traffic`.
      frozen: parameters beside those of the state, if any: read, and without gradients.
    """
    whole = frozen or state.params
    read = weights_traffic(config, whole.get("model", whole), head)
    if frozen:
        read += local_bytes(state.params)
    gradients = sum(4 * int(np.prod(_local_shape(leaf))) for leaf in jax.tree.leaves(state.params))
    each = 2 * read + 2 * gradients
    # The last two terms are the update: one read of the sum, one read and write of the state.
    return passes * each + gradients + 2 * local_bytes(state)
