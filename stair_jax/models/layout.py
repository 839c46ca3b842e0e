"""How a model is laid out on a mesh: vocabulary padding and KV heads."""

import dataclasses

from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models.base_quantization import block_size
from stair_jax.models.config import ModelConfig
from stair_jax.monitoring import say


def fit_to_mesh(config: ModelConfig, mesh: Mesh, vocab_multiple: int = 1) -> ModelConfig:
    """Adapts a config to a mesh: pads the vocabulary, and replicates KV heads if need be.

    KV heads are replicated on all devices of the tensor axis if it does not divide their number.

    Args:
        config: the model config.
        mesh: the mesh.
        vocab_multiple: what the number of rows of embedding and head is padded to a multiple of.

    Raises:
        UserError: names a size of the model that the mesh does not divide.
    """
    tensor = mesh.shape["tensor"]
    # Replicated KV heads only cost more; everything else that does not divide is an error.
    shard_kv_heads = config.num_key_value_heads % tensor == 0
    config = dataclasses.replace(
        config, vocab_multiple=vocab_multiple, shard_kv_heads=shard_kv_heads
    )
    for name in ("num_attention_heads", "intermediate_size"):
        _require_parts(name, getattr(config, name), mesh, "tensor")
    _require_parts("hidden_size", config.hidden_size, mesh, "fsdp")
    if config.base_weights != "none":
        _require_blocks("intermediate_size", config.intermediate_size, mesh, "tensor")
        _require_blocks("hidden_size", config.hidden_size, mesh, "fsdp")
    if config.padded_vocab_size % tensor:
        raise UserError(
            f"the vocabulary of {config.padded_vocab_size} cannot be split over tensor {tensor} of "
            f"the mesh: set runtime.vocab_multiple to a multiple of {tensor}, such as "
            f"{tensor * max(1, 128 // tensor)}"
        )
    if not shard_kv_heads:
        say(
            f"num_key_value_heads {config.num_key_value_heads} is not a multiple of tensor "
            f"{tensor}: keys and values are replicated over the tensor axis"
        )
    return config


def _require_parts(name: str, size: int, mesh: Mesh, axis: str) -> None:
    if size % mesh.shape[axis]:
        raise UserError(
            f"{name} {size} of the model cannot be split over {axis} {mesh.shape[axis]} of the "
            f"mesh: set {axis} of runtime.training_mesh (or decoding_mesh) to a divisor of {size}"
        )


def _require_blocks(name: str, size: int, mesh: Mesh, axis: str) -> None:
    """Refuses blocks of quantized kernels that would lie on two devices."""
    block = block_size(size)
    if (size // block) % mesh.shape[axis]:
        raise UserError(
            f"{name} {size} of the model in blocks of {block} (base_weights) cannot be split over "
            f"{axis} {mesh.shape[axis]} of the mesh: set {axis} of runtime.training_mesh to a "
            f"divisor of {size // block}"
        )
