"""The decoding engine of a stage that samples from an earlier stage's model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from stair_jax.decoding.engine import Engine
from stair_jax.decoding.shapes import EngineShapes
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import make_mesh
from stair_jax.planning.abstract import Place
from stair_jax.planning.decoding import EnginePlan, plan_shapes
from stair_jax.stages.runtime import Runtime
from stair_jax.text.tokenizer import Tokenizer


def load_engine(
    hf: Path,
    context_tokens: int,
    dtype: str,
    runtime: Runtime,
    *,
    weights: str = "none",
    kv_dtype: str = "",
) -> tuple[Engine, Tokenizer]:
    """An engine over the model in a Hugging Face folder, and its tokenizer.

    Args:
      hf: the folder.
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      runtime: devices, slots and sizes.
      weights: see `EngineShapes`.
      kv_dtype: see `EngineShapes`.
    """
    mesh = decoding_mesh(runtime)
    config = configure(huggingface.load_config(hf), dtype, runtime, mesh)
    shapes = engine_shapes(context_tokens, runtime, weights, kv_dtype)
    params = huggingface.load_params(hf, config, mesh)
    return Engine(config, params, shapes, mesh=mesh, consume=True), Tokenizer.load(hf)


def plan_engine(
    model: ModelConfig,
    context_tokens: int,
    dtype: str,
    runtime: Runtime,
    devices: Sequence[jax.Device],
    *,
    weights: str = "none",
    kv_dtype: str = "",
    beside: Any = (),
) -> EnginePlan:
    """What `load_engine` makes, without weights, on devices that need not be there.

    `beside` are shapes of what is on the devices before it.
    """
    mesh = decoding_mesh(runtime, devices)
    config = configure(model, dtype, runtime, mesh)
    place: Place = mesh or devices[0]
    if mesh is None and devices[0].platform == "tpu":
        place = make_mesh(devices=devices[:1])  # a kernel for TPUs asks the mesh for its chip
    shapes = engine_shapes(context_tokens, runtime, weights, kv_dtype)
    return EnginePlan(config, place, plan_shapes(config, shapes, place, beside))


def engine_shapes(
    context_tokens: int, runtime: Runtime, weights: str = "none", kv_dtype: str = ""
) -> EngineShapes:
    """The shapes of an engine, as the config gives them."""
    return EngineShapes(
        num_slots=runtime.slots,
        max_length=context_tokens,
        page_size=runtime.page_size,
        cache_tokens=runtime.cache_tokens,
        prefill_rows=runtime.prefill_rows,
        prefill_width=runtime.prefill_width,
        steps_per_call=runtime.steps_per_call,
        attention=runtime.attention,
        weights=weights,
        kv_dtype=kv_dtype,
    )


def decoding_mesh(runtime: Runtime, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The mesh that decodes; None for one device, where plain programs do the same.

    Without `devices` it is over those of this process: each process decodes on its own.
    """
    mesh = make_mesh(runtime.decoding_mesh, jax.local_devices() if devices is None else devices)
    runtime.check_decoding(mesh)
    return mesh if mesh.size > 1 else None


def configure(config: ModelConfig, dtype: str, runtime: Runtime, mesh: Mesh | None) -> ModelConfig:
    """The config of a checkpoint, computed in `dtype` and laid out on the mesh."""
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
    return config if mesh is None else fit_to_mesh(config, mesh, runtime.vocab_multiple)
