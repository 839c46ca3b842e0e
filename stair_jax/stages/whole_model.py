"""What stages share that write a model anew: how it is laid out, and what it takes on the disk."""

import dataclasses
import math
from pathlib import Path

from jax.sharding import Mesh

from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.run.meshes import checkpoint_bytes, training_mesh
from stair_jax.run.runtime import Runtime


def lay_out_whole(source: Path, dtype: str, runtime: Runtime) -> tuple[ModelConfig, Mesh]:
    """How a model is read to be written whole: its config, and the mesh that it lies on.

    Args:
      source: its folder; adapters are merged while they are read.
      dtype: of its parameters in memory.
      runtime: of the run.
    """
    model = dataclasses.replace(huggingface.load_config(source), param_dtype=dtype, lora=None)
    mesh = training_mesh(runtime, model)
    multiple = math.lcm(runtime.vocab_multiple, mesh.shape["tensor"])
    return fit_to_mesh(model, mesh, multiple), mesh


def written_bytes(model: ModelConfig | None, dtype: str, of_adapters: bool) -> int:
    """Bytes of a model's weights, or of its adapters alone, in a dtype; 0: it is not known."""
    if model is None:
        return 0
    whole = checkpoint_bytes(dataclasses.replace(model, lora=None), dtype)
    return checkpoint_bytes(model, dtype) - whole if of_adapters else whole
