"""The decoding engine of a stage that samples from an earlier stage's model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from stair_jax.decoding.engine import Engine
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import make_mesh
from stair_jax.planning.decoding import EnginePlan
from stair_jax.stages.runtime import Runtime
from stair_jax.text.tokenizer import Tokenizer


def load_engine(
    hf: Path, context_tokens: int, dtype: str, runtime: Runtime
) -> tuple[Engine, Tokenizer]:
    """An engine over the model in a Hugging Face folder, and its tokenizer.

    Args:
      hf: the folder.
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      runtime: devices, slots and sizes.
    """
    mesh = decoding_mesh(runtime)
    config = configure(huggingface.load_config(hf), dtype, runtime, mesh)
    engine = Engine(
        config,
        huggingface.load_params(hf, config, mesh),
        num_slots=runtime.slots,
        max_length=context_tokens,
        prefill_rows=runtime.prefill_rows,
        steps_per_call=runtime.steps_per_call,
        mesh=mesh,
    )
    return engine, Tokenizer.load(hf)


def plan_engine(
    model: ModelConfig,
    context_tokens: int,
    dtype: str,
    runtime: Runtime,
    devices: Sequence[jax.Device],
) -> EnginePlan:
    """What `load_engine` makes, without weights, on devices that need not be there."""
    mesh = decoding_mesh(runtime, devices)
    return EnginePlan(
        configure(model, dtype, runtime, mesh),
        mesh or devices[0],
        runtime.slots,
        context_tokens,
        runtime.prefill_rows,
        runtime.steps_per_call,
    )


def decoding_mesh(runtime: Runtime, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The mesh that decodes; None for one device, where plain programs do the same."""
    mesh = make_mesh(runtime.decoding_mesh, devices)
    runtime.check_decoding(mesh)
    return mesh if mesh.size > 1 else None


def configure(config: ModelConfig, dtype: str, runtime: Runtime, mesh: Mesh | None) -> ModelConfig:
    """The config of a checkpoint, computed in `dtype` and laid out on the mesh."""
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
    return config if mesh is None else fit_to_mesh(config, mesh, runtime.vocab_multiple)
