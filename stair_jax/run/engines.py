"""The decoding engine of a stage that samples from an earlier stage's model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from stair_jax.decoding.engine import Engine
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.serving.fused_adapters import Adapter
from stair_jax.parallel.chips import is_here, memory_bytes
from stair_jax.parallel.mesh import batch_devices, make_mesh
from stair_jax.planning.abstract import Place
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.decoding import EnginePlan, abstract_fused_params, plan_engine_config
from stair_jax.run.meshes import decoding_mesh, itemsize_of
from stair_jax.run.runtime import Runtime
from stair_jax.text.tokenizer import Tokenizer

# Settings of stages that decode which take memory, see `Stage.MEMORY`.
DECODING_MEMORY = ("runtime.slots", "runtime.cache_tokens", "context_tokens")


@dataclass(frozen=True)
class EngineSettings:
    """What a stage says of its engine.

    Attributes:
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      weights: "none", or 8 bits, see `EngineConfig`.
      kv_dtype: of the cache, see `EngineConfig`.
      is_shared: whether other models over the same base are served too: adapters then stay beside
        it. Otherwise they are merged: a model alone so costs no more than one without adapters.
    """

    context_tokens: int
    dtype: str
    weights: str = "none"
    kv_dtype: str = ""
    is_shared: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether weights and cache are in `dtype`, none in 8 bits."""
        return self.weights == "none" and self.kv_dtype in ("", self.dtype)


@dataclass(frozen=True)
class PlannedEngine(EnginePlan):
    """An engine that need not exist, and the sizes that were settled for it."""

    runtime: Runtime


@dataclass(frozen=True)
class EngineLayout:
    """A model laid out on the devices that decode, with all sizes settled.

    Attributes:
      config: of the model, computed in the engine's dtype.
      mesh: None for one device, where plain programs do the same.
      place: the mesh or the one device, as programs are planned for it.
      runtime: with a number for each size.
    """

    config: ModelConfig
    mesh: Mesh | None
    place: Place
    runtime: Runtime


def load_engine(
    hf: Path,
    settings: EngineSettings,
    runtime: Runtime,
    beside: Any = (),
    others: Sequence[Path] = (),
) -> tuple[Engine, Tokenizer, Runtime]:
    """An engine over the model in a Hugging Face folder, its tokenizer, and the sizes settled.

    Args:
      hf: the folder.
      settings: of the stage.
      runtime: of the config.
      beside: shapes of what is on the devices before it.
      others: folders of adapters over the same base, see `start_engine`.
    """
    layout = lay_out_engine(huggingface.load_config(hf), settings, runtime, beside=beside)
    return start_engine(hf, settings, layout, others), Tokenizer.load(hf), layout.runtime


def start_engine(
    hf: Path, settings: EngineSettings, layout: EngineLayout, others: Sequence[Path] = ()
) -> Engine:
    """An engine over the model in a Hugging Face folder, as it was laid out.

    Args:
      hf: the folder.
      settings: of the stage.
      layout: of the model.
      others: folders of adapters over the same base, which the engine serves too: the adapters that
        follow those of the model itself.
    """
    params = huggingface.load_params(hf, layout.config, layout.mesh)
    engine_config = make_engine_config(settings, layout.runtime)
    adapters = [_load_adapter(folder, layout) for folder in others]
    return Engine(
        layout.config, params, engine_config, adapters=adapters, mesh=layout.mesh, consume=True
    )


def _load_adapter(folder: Path, layout: EngineLayout) -> Adapter:
    lora = huggingface.load_config(folder).lora
    assert lora is not None, f"{folder} has no adapters"
    config = dataclasses.replace(layout.config, lora=lora)
    return Adapter(lora, huggingface.load_adapters(folder, config, layout.mesh))


def plan_engine(
    model: ModelConfig,
    settings: EngineSettings,
    runtime: Runtime,
    devices: Sequence[jax.Device],
    beside: Any = (),
) -> PlannedEngine:
    """What `load_engine` makes, without weights, on devices that need not be there.

    Args:
      model: as the checkpoint has it.
      settings: of the stage.
      runtime: of the config.
      devices: that decode.
      beside: shapes of what is on the devices before it.

    Raises:
      UserError: the model or the cache does not fit; says what would.
    """
    layout = lay_out_engine(model, settings, runtime, devices, beside)
    return plan_laid_out(layout, settings, devices, beside)


def plan_laid_out(
    layout: EngineLayout, settings: EngineSettings, devices: Sequence[jax.Device], beside: Any = ()
) -> PlannedEngine:
    """As `plan_engine`, of a model that is laid out already."""
    engine_config = make_engine_config(settings, layout.runtime)
    memory = memory_bytes(devices[0])
    planned = plan_engine_config(layout.config, engine_config, layout.place, beside, memory)
    return PlannedEngine(layout.config, layout.place, planned, layout.runtime)


def lay_out_engine(
    model: ModelConfig,
    settings: EngineSettings,
    runtime: Runtime,
    devices: Sequence[jax.Device] | None = None,
    beside: Any = (),
) -> EngineLayout:
    """Mesh, layout of the model, and sizes that fit where the config leaves them open.

    Raises:
      UserError: a size that the config sets cannot be.
    """
    devices = jax.local_devices() if devices is None else devices
    mesh = decoding_mesh(runtime, model, itemsize_of(settings.dtype, settings.weights), devices)
    shared = mesh if mesh.size > 1 else None
    config = configure(model, settings, runtime, shared)
    place: Place = shared or devices[0]
    if shared is None and (devices[0].platform == "tpu" or not is_here(devices[0])):
        # A kernel for TPUs asks the mesh for its chip, and backends for the platform to plan for.
        place = make_mesh(devices=devices[:1])
    sized = runtime.sized(devices[0].platform, shared)
    if not runtime.slots and devices[0].platform != "cpu":
        sized = _fewer_slots(config, settings, runtime, sized, place, beside)
    return EngineLayout(config, shared, place, sized)


def lay_out_judge(
    judge: ModelConfig,
    settings: EngineSettings,
    policy: ModelConfig,
    policy_settings: EngineSettings,
    runtime: Runtime,
    devices: Sequence[jax.Device] | None = None,
    beside: Any = (),
) -> EngineLayout:
    """As `lay_out_engine`, for an engine that is made first and leaves room for another one.

    Its cache gets `runtime.judge_memory` of the memory that the weights of both leave; where
    `runtime.cache_tokens` is set, and on CPUs, each of the two has a cache of its own of that size.

    Args:
      judge: the model of this engine.
      settings: of the same.
      policy: the model of the other engine.
      policy_settings: of the same.
      runtime: of the config.
      devices: that decode, both engines on all of them.
      beside: shapes of what is on the devices before both.

    Raises:
      UserError: the models, or the cache, do not fit.
    """
    devices = jax.local_devices() if devices is None else devices
    layout = lay_out_engine(judge, settings, runtime, devices, beside)
    if runtime.cache_tokens or devices[0].platform == "cpu":
        return layout
    other = lay_out_engine(policy, policy_settings, runtime, devices, beside)
    own = local_bytes(_weights(layout, settings))
    taken = own + local_bytes((_weights(other, policy_settings), beside))
    memory = own + runtime.judge_memory * (memory_bytes(devices[0]) - taken)
    sizes = make_engine_config(settings, layout.runtime)
    planned = plan_engine_config(layout.config, sizes, layout.place, (), memory)
    tokens = planned.num_shards * (planned.num_pages - 1) * planned.page_size
    sized = dataclasses.replace(layout.runtime, cache_tokens=tokens)
    return dataclasses.replace(layout, runtime=sized)


def _weights(layout: EngineLayout, settings: EngineSettings) -> Any:
    """The weights of an engine, as shapes."""
    sizes = make_engine_config(settings, layout.runtime).resolve(layout.config, layout.place)
    return abstract_fused_params(layout.config, sizes, layout.place)


def _fewer_slots(
    config: ModelConfig,
    settings: EngineSettings,
    runtime: Runtime,
    sized: Runtime,
    place: Place,
    beside: Any,
) -> Runtime:
    """Half of the slots, again and again, until the longest sequence fits into the cache."""
    mesh = place if isinstance(place, Mesh) else None
    device = place.devices.flat[0] if isinstance(place, Mesh) else place
    memory, parts = memory_bytes(device), batch_devices(mesh) if mesh else 1
    while True:
        try:
            plan_engine_config(config, make_engine_config(settings, sized), place, beside, memory)
            return sized
        except UserError:
            half = sized.slots // 2
            if half < parts:
                return sized  # the engine itself says what does not fit
            sized = dataclasses.replace(runtime, slots=half).sized(device.platform, mesh)


def make_engine_config(settings: EngineSettings, runtime: Runtime) -> EngineConfig:
    """The shapes of an engine, from sizes that are settled."""
    return EngineConfig(
        num_slots=runtime.slots,
        max_length=settings.context_tokens,
        page_size=runtime.page_size,
        cache_tokens=runtime.cache_tokens,
        prefill_rows=runtime.prefill_rows,
        prefill_width=runtime.prefill_width,
        steps_per_call=runtime.steps_per_call,
        attention=runtime.attention,
        weights=settings.weights,
        kv_dtype=settings.kv_dtype,
    )


def configure(
    config: ModelConfig, settings: EngineSettings, runtime: Runtime, mesh: Mesh | None
) -> ModelConfig:
    """The config of a checkpoint as an engine has it, laid out on the mesh."""
    dtype, adapters = settings.dtype, config.lora if settings.is_shared else None
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype, lora=adapters)
    return config if mesh is None else fit_to_mesh(config, mesh, runtime.vocab_multiple)
