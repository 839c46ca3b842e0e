"""Changes of a stage's settings that make it need less memory of the devices, by what they harm."""

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stair_jax.errors import UserError
from stair_jax.models.lora import Lora
from stair_jax.parallel.mesh import MeshShape
from stair_jax.run.runtime import Runtime
from stair_jax.run.stage_list import StageEntry

_RUNTIME = "runtime."
# Of the adapters that take the place of all parameters, as in recipes/one_gpu.py.
_RANK, _FASTER = 64, 10
_SMALL_WEIGHTS = {"gpu": "fp8", "tpu": "int8"}  # of an engine, by platform
_SLOTS, _PREFILL_ROWS = 256, 16  # what 0 of these means at most, for each device
_MOST_HALVINGS = 5


class Harm(enum.IntEnum):
    """What a change does to a run, the least harmful first.

    A more harmful one is tried only where all less harmful ones together do not do.
    """

    COST = 0
    ROUNDING = 1
    ENGINE = 2
    ADAPTERS = 3
    BASE = 4

    @property
    def text(self) -> str:
        """In words."""
        return _TEXTS[self]


_TEXTS = {
    Harm.COST: "changes cost alone",
    Harm.ROUNDING: "alters results by rounding: of moments, parameters, gradients",
    Harm.ENGINE: "alters results: samples of a model with weights or cache in 8 bits",
    Harm.ADAPTERS: "alters results: adapters are trained in place of all parameters (LoRA)",
    Harm.BASE: "alters results: adapters over a quantised base (QLoRA)",
}


@dataclass(frozen=True)
class Saving:
    """A change that saves memory.

    Attributes:
      harm: what it does to the run.
      values: by dotted name of a field of the stage, or of `runtime` behind "runtime.".
    """

    harm: Harm
    values: Mapping[str, Any]

    @property
    def knob(self) -> frozenset[str]:
        """The fields; savings of the same fields are degrees of one change."""
        return frozenset(self.values)


def apply(entry: StageEntry, runtime: Runtime, values: Mapping[str, Any]) -> tuple[Any, Runtime]:
    """A stage, as its entry, and the runtime with other values.

    Raises:
      UserError: the settings do not go together.
    """
    sizes = {name: value for name, value in values.items() if name.startswith(_RUNTIME)}
    own = {name: value for name, value in values.items() if name not in sizes}
    stage = replace_at(entry.stage, own)
    runtime = replace_at(runtime, {k.removeprefix(_RUNTIME): v for k, v in sizes.items()})
    return dataclasses.replace(entry, stage=stage), runtime


def replace_at(settings: Any, values: Mapping[str, Any]) -> Any:
    """Settings with other values of fields, by their dotted names; all of them at once."""
    own = {name: value for name, value in values.items() if "." not in name}
    for section in dict.fromkeys(name.partition(".")[0] for name in values if "." in name):
        start = f"{section}."
        nested = {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
        own[section] = replace_at(getattr(settings, section), nested)
    return dataclasses.replace(settings, **own)


def value_at(settings: Any, name: str) -> Any:
    """The value of a field by its dotted name."""
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def halvings(size: int, least: int = 1) -> Iterator[int]:
    """Multiples of `least` below `size`, each at most half of the one before it, down to `least`.

    A size that is no multiple is rounded down first.
    """
    parts = size // least
    if size % least and parts:
        yield parts * least
    while parts > 1:
        parts //= 2
        yield parts * least


def training_savings(
    settings: Any, runtime: Runtime, platform: str, num_devices: int, before: Lora | None
) -> list[Saving]:
    """What a stage that trains can do, the least harmful first.

    Args:
      settings: of the stage, a `TrainingStage`.
      runtime: of the run.
      platform: of the devices that train.
      num_devices: that train.
      before: adapters of the model that training starts from, which goes on with them.
    """
    parts = _parts(runtime.training_mesh, num_devices)
    rows, least = settings.microbatch_rows or 2 * parts, _multiple(settings.least_rows, parts)
    fewer = list(halvings(rows, least)) if rows >= least else [least]  # the rows follow the mesh
    cost = [Saving(Harm.COST, {"microbatch_rows": each}) for each in fewer]
    if settings.LOGITS:
        more = (settings.logps_chunks * 4, settings.logps_chunks * 16)
        cost += [Saving(Harm.COST, {"logps_chunks": each}) for each in more if each <= 64]
    cost += [Saving(Harm.COST, {"remat": each}) for each in _stricter(settings.remat)]
    if runtime.training_mesh:
        least = _multiple(settings.least_rows, num_devices)
        free = {f"{_RUNTIME}training_mesh": None, "microbatch_rows": least}
        cost.append(Saving(Harm.COST, free))
    return [*cost, *_rounded(settings, platform), *_lora_savings(settings, before)]


def _rounded(settings: Any, platform: str) -> list[Saving]:
    """Smaller moments and parameters, whose updates are rounded at random; then away with moments.

    Moments in the memory of the host round as others do, but the step that reads them there is not
    that of the default optimizer, and takes longer.
    """
    found: list[dict[str, Any]] = []
    if settings.mu_dtype == "float32":
        found.append({"mu_dtype": "bfloat16"})
    if settings.second_moment == "float32":
        found.append({"second_moment": "int8"})
    if settings.param_dtype != "bfloat16":
        nearest = settings.rounding == "nearest"
        found.append({"param_dtype": "bfloat16"} | ({"rounding": "stochastic"} if nearest else {}))
    if settings.accumulate_dtype == "float32":
        found.append({"accumulate_dtype": "bfloat16"})
    if settings.mu_dtype != "int8":
        found.append({"mu_dtype": "int8"})
    if settings.second_moment != "factored":
        found.append({"second_moment": "factored"})
    if not settings.offload and platform != "cpu":  # whose memory is that of the host
        found.append({"offload": True} | (_wide_moments(settings) if platform == "tpu" else {}))
    return [Saving(Harm.ROUNDING, values) for values in found]


def _wide_moments(settings: Any) -> dict[str, str]:
    """Moments that programs of TPUs take off the host: those of the stage, but none in int8."""
    first, second = settings.mu_dtype, settings.second_moment
    return {
        "mu_dtype": "bfloat16" if first == "int8" else first,
        "second_moment": "factored" if second == "int8" else second,
    }


def _multiple(least: int, size: int) -> int:
    """The smallest multiple of a size that is not below `least`."""
    return size * math.ceil(least / size)


def _parts(mesh: MeshShape | None, num_devices: int) -> int:
    """Parts of the devices that each have rows of their own."""
    try:
        shape = (mesh or MeshShape(fsdp=-1)).resolve(num_devices)
    except UserError:
        return num_devices
    return shape.data * shape.fsdp


def _stricter(remat: str) -> list[str]:
    """Policies that keep less for the backward pass than one does."""
    order = ("none", "dots", "attention_mlp", "attention", "full")
    later = order[order.index(remat) + 1 :] if remat in order else ()
    return [name for name in later if name != "dots"]


def _lora_savings(settings: Any, before: Lora | None) -> list[Saving]:
    """Adapters, or those that the model has already; then a base that is held in fewer bits."""
    stronger = {"none": ("int8", "nf4"), "fp8": ("nf4",), "int8": ("nf4",), "nf4": ()}
    bases = [
        Saving(Harm.BASE, {"lora.base_weights": kind})
        for kind in stronger[settings.lora.base_weights]
    ]
    if settings.lora.rank:
        return bases
    values: dict[str, Any] = {
        "lora.rank": before.rank if before else _RANK,
        "learning_rate": float(f"{_FASTER * settings.learning_rate:.6g}"),
        "rounding": "nearest",  # adapters are float32
    }
    if before and before.scale != 2:  # that of the default alpha
        values["lora.alpha"] = before.scale * before.rank
    if before and before.targets != settings.lora.targets:
        values["lora.targets"] = before.targets
    if before is None or before.token_ids:  # rows that the base was never trained on
        values["lora.train_tags"] = True
    return [Saving(Harm.ADAPTERS, values), *bases]


def decoding_savings(
    settings: Any, runtime: Runtime, platform: str, num_devices: int
) -> list[Saving]:
    """What a stage that decodes can do, the least harmful first.

    Args:
      settings: of the stage.
      runtime: of the run.
      platform: of the devices that decode.
      num_devices: that decode.
    """
    slots = list(halvings(runtime.slots or _SLOTS * num_devices, num_devices))
    rows = list(halvings(runtime.prefill_rows or _PREFILL_ROWS * num_devices, num_devices))
    cost: list[dict[str, Any]] = [
        *({name: 0} for name in ("cache_tokens", "trees_in_flight") if getattr(runtime, name)),
        *({"slots": each} for each in slots[:_MOST_HALVINGS]),
        *({"prefill_rows": each} for each in rows[:_MOST_HALVINGS]),
        *([{"decoding_mesh": None}] if runtime.decoding_mesh else []),
        *([{"tree_device": "host"}] if runtime.tree_device == "device" else []),
    ]
    found = [
        Saving(Harm.COST, {f"{_RUNTIME}{name}": value for name, value in values.items()})
        for values in cost
    ]
    names = {info.name for info in dataclasses.fields(settings)}
    if settings.dtype == "float32":
        found.append(Saving(Harm.ROUNDING, {"dtype": "bfloat16"}))
    small = _SMALL_WEIGHTS.get(platform)
    if small and settings.weights == "none":
        found.append(Saving(Harm.ENGINE, {"weights": small}))
    if small and "kv_dtype" in names and not settings.kv_dtype:
        found.append(Saving(Harm.ENGINE, {"kv_dtype": "int8"}))
    return found
