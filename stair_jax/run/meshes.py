"""The meshes that training and decoding run on: those of the config, or ones that fit."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params, init_params
from stair_jax.monitoring import say
from stair_jax.parallel.chips import memory_bytes
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.run.runtime import Runtime

_MOST_OF_MEMORY = 0.5  # the rest is for the cache, and for what a program needs for a while


def training_mesh(
    runtime: Runtime, model: ModelConfig, rows: int = 0, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The mesh that trains (fully sharded data parallel unless the config says otherwise).

    Args:
      runtime: of the config.
      model: what is trained.
      rows: of a micro-batch; 0: they follow the mesh.
      devices: default: all of the run.

    Raises:
      UserError: the mesh of the config does not fit, or all devices of several processes cannot
        be used together.
    """
    devices = jax.devices() if devices is None else devices
    if runtime.training_mesh is not None:
        mesh = _named("training_mesh", runtime.training_mesh, devices)
        _check_processes(mesh, devices)
        return mesh
    sizes = [rows, model.hidden_size]
    fsdp = next(n for n in _divisors(len(devices))[::-1] if all(size % n == 0 for size in sizes))
    if fsdp < len(devices):
        both = f"both the {rows} rows of a micro-batch and " if rows else ""
        unused = (
            f"{len(devices)} devices do not divide {both}hidden_size {model.hidden_size} of the "
            "model"
        )
        if len({device.process_index for device in devices}) > 1:
            advice = "microbatch_rows to 0, or " if rows else ""
            raise UserError(f"{unused}: set {advice}runtime.training_mesh")
        say(f"{unused}: training uses {fsdp} of them")
    return make_mesh(MeshShape(fsdp=fsdp), devices)


def decoding_mesh(
    runtime: Runtime,
    model: ModelConfig,
    itemsize: float,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """The mesh that decodes: data parallel slots, tensor parallel as far as memory asks for it.

    Args:
      runtime: of the config.
      model: that decodes.
      itemsize: bytes per weight.
      devices: default: those of this process, as each process decodes on its own.

    Raises:
      UserError: the mesh of the config does not fit.
    """
    devices = jax.local_devices() if devices is None else devices
    if runtime.decoding_mesh is not None:
        return _named("decoding_mesh", runtime.decoding_mesh, devices)
    vocab = -(-model.vocab_size // runtime.vocab_multiple) * runtime.vocab_multiple
    sizes = (
        model.num_attention_heads,
        model.num_key_value_heads,
        model.intermediate_size,
        vocab,
    )
    possible = [n for n in _divisors(len(devices)) if all(size % n == 0 for size in sizes)]
    room = _MOST_OF_MEMORY * memory_bytes(devices[0])
    weights = itemsize * num_parameters(model)
    tensor = next((n for n in possible if weights / n <= room), possible[-1])
    return make_mesh(MeshShape(data=len(devices) // tensor, tensor=tensor), devices)


def num_parameters(model: ModelConfig) -> int:
    """Parameters of a model, without the padding of its vocabulary."""
    return count_values(model_shapes(model))


def model_shapes(model: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters of a model."""
    return jax.eval_shape(partial(init_params, model), jax.random.key(0))


def count_values(tree: Any) -> int:
    """Number of values in the arrays, or shapes, of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def itemsize_of(dtype: str, weights: str = "none") -> float:
    """Bytes per weight that an engine holds: of `dtype`, or one where they are in 8 bits."""
    return np.dtype(jax.numpy.dtype(dtype)).itemsize if weights == "none" else 1.0


def checkpoint_bytes(model: ModelConfig | None, dtype: str) -> int:
    """Size of an exported checkpoint whose weights are of `dtype`; 0 where the model is unknown."""
    return 0 if model is None else int(num_parameters(model) * itemsize_of(dtype))


def _named(field: str, shape: MeshShape, devices: Sequence[jax.Device]) -> Mesh:
    try:
        return make_mesh(shape, devices)
    except UserError as error:
        raise UserError(f"runtime.{field}: {error}") from error


def _check_processes(mesh: Mesh, devices: Sequence[jax.Device]) -> None:
    """Raises a UserError where a process has no device that trains: all of them go in step."""
    idle = {each.process_index for each in devices} - {d.process_index for d in mesh.devices.flat}
    if idle:
        raise UserError(
            f"runtime.training_mesh has {mesh.size} of {len(devices)} devices, and none of process "
            f"{min(idle)}: set one of its axes to -1, or start fewer processes "
            "(runtime.training_hosts on a cluster)"
        )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
