"""The mean of several models of a run, such as those of its iterations."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.averaging import average, average_adapters
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.monitoring import say
from stair_jax.planning.needs import Needs, Work
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.meshes import training_mesh
from stair_jax.run.model_folders import have_one_base
from stair_jax.run.runtime import Runtime
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.settings import setting
from stair_jax.stages.stage_needs import copy_needs
from stair_jax.stages.whole_model import lay_out_whole, written_bytes
from stair_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Average(Stage):
    """Settings of `average`.

    Attributes:
      model: the stage of the first model, whose tokenizer and template are kept.
      others: the stages of the other models, of the same shape.
      weights: of `model` and each of the others, divided by their sum; empty: all alike.
      form: "merged" writes a whole model. "adapter" writes adapters whose product is the mean of
        those of the models, which have one base: their ranks add up.
      dtype: of the tensors; empty: as in `model`.
    """

    model: str = stage_input(Artifact.MODEL)
    others: tuple[str, ...] = stage_input(Artifact.MODEL, many=True)
    weights: tuple[float, ...] = ()
    form: Literal["merged", "adapter"] = "merged"
    dtype: str = setting("", choices=("", *DTYPES))

    def __post_init__(self) -> None:
        """Raises a UserError that names settings that do not go together."""
        super().__post_init__()
        count = 1 + len(self.others)
        if self.weights and len(self.weights) != count:
            raise UserError(
                f"weights are {len(self.weights)}, and the models {count}: one for each"
            )
        if any(not math.isfinite(w) or w < 0 for w in self.weights) or sum(self.shares) <= 0:
            raise UserError("weights have to be at least 0, and one of them above")

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights of the models, whose sum is 1."""
        weights = self.weights or (1.0,) * (1 + len(self.others))
        total = sum(weights)
        return tuple(weight / total for weight in weights) if total > 0 else weights

    def makes(self) -> Mapping[str, Artifact]:
        """A language model."""
        return {"hf": Artifact.MODEL}

    def check_devices(self, context: PlanContext) -> None:
        """Checks that the models have one shape, and adapters where these are to be averaged."""
        first = context.model("model")
        names = (self.model, *self.others)
        models = (first, *context.models.get("others", ()))
        for name, model in zip(names, models, strict=True):
            if not _is_like(model, first):
                raise UserError(f"{name} has another shape than {self.model}: leave it out")
            if self.form == "adapter" and model.lora is None:
                raise UserError(
                    f"form is adapter, and {name} makes a whole model: set it to merged"
                )
        training_mesh(context.runtime, first, devices=context.devices)

    def run(self, context: StageContext) -> None:
        """Writes `hf/`."""
        sources = [context.input("model") / "hf", *self._others(context)]
        tokenizer = Tokenizer.load(sources[0])
        of_adapters = self.form == "adapter"
        dtype = self.dtype or huggingface.stored_dtype(sources[0], of_adapters=of_adapters)
        target = context.folder / "hf"
        if of_adapters:
            _write_adapters(sources, self.shares, target, tokenizer, dtype)
        else:
            _write_whole(sources, self.shares, target, tokenizer, dtype, context.runtime)
        say(f"{context.name}: the mean of {len(sources)} models")

    def _others(self, context: StageContext) -> list[Path]:
        return [folder / "hf" for folder in context.input_list("others")]

    def planned_base(self) -> str:
        """Where adapters are written, they are of the base of the first model's."""
        return "model" if self.form == "adapter" else ""

    def planned_model(self, inputs: Mapping[str, tuple[ModelConfig, ...]]) -> ModelConfig | None:
        """The model in `hf/`."""
        first = super().planned_model(inputs)
        if first is None or first.lora is None or self.form == "merged":
            return None if first is None else dataclasses.replace(first, lora=None)
        models = (first, *inputs.get("others", ()))
        rank = sum(model.lora.rank for model in models if model.lora is not None)
        return dataclasses.replace(first, lora=dataclasses.replace(first.lora, rank=rank))

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """The models are read, and one is written."""
        models = {field: tuple(found) for field, found in context.models.items()}
        made = self.planned_model(models) or context.model("model")
        return copy_needs(self, made, self.dtype or "float32", work)

    def model_bytes(self, model: ModelConfig | None) -> int:
        """The weights."""
        return written_bytes(model, self.dtype or "float32", self.form == "adapter")


def _is_like(model: ModelConfig, other: ModelConfig) -> bool:
    """Whether two models have the same parameters but for adapters."""

    def plain(config: ModelConfig) -> ModelConfig:
        return dataclasses.replace(config, lora=None, dtype="float32", param_dtype="float32")

    return plain(model) == plain(other)


def _write_adapters(
    sources: list[Path], shares: tuple[float, ...], target: Path, tokenizer: Tokenizer, dtype: str
) -> None:
    if not have_one_base(*sources):
        raise UserError("the models have adapters of other bases: set form to merged")
    base = huggingface.adapter_base(sources[0])
    configs = [huggingface.load_config(source) for source in sources]
    if base is None or any(config.lora is None for config in configs):
        raise UserError("form is adapter, and a model has none: set it to merged")
    parts = [
        (huggingface.load_adapters(source, config), config.lora)
        for source, config in zip(sources, configs, strict=True)
        if config.lora is not None
    ]
    params, lora = average_adapters(parts, shares)
    config = dataclasses.replace(configs[0], lora=lora)
    huggingface.save_adapter(target, params, config, tokenizer, base, None, dtype)


def _write_whole(
    sources: list[Path],
    shares: tuple[float, ...],
    target: Path,
    tokenizer: Tokenizer,
    dtype: str,
    runtime: Runtime,
) -> None:
    """Writes the mean of the models, whose adapters are merged while they are read."""
    config, mesh = lay_out_whole(sources[0], "float32", runtime)
    params = average((huggingface.load_params(source, config, mesh) for source in sources), shares)
    huggingface.save(target, params, config, tokenizer, None, dtype)
