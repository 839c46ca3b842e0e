"""The base checkpoint, with the four tags in its tokenizer and its embedding."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from stair_jax import pocket
from stair_jax.errors import UserError
from stair_jax.models import hub
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.huggingface import load_config, load_params, save, stored_dtype
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.parallel.mesh import make_mesh
from stair_jax.planning.base_model import base_model
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext
from stair_jax.stages.runtime import Runtime
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import Tokenizer, load_huggingface

INPUTS: tuple[str, ...] = ()
_POCKET = "pocket"


@dataclass(frozen=True)
class ModelSettings:
    """Settings of `model`.

    Attributes:
      init: a Hugging Face folder, an id of its hub such as `Qwen/Qwen2-7B-Instruct`, or "pocket",
        the base that comes with the package.
      architecture: hub id of a model of the same shape, for a plan made without the checkpoint;
        empty: `init`.
      tag_noise: spread of the new tags' rows around the mean row, in standard deviations of the
        rows.
      redraw_tags: draw the rows of tags too that the tokenizer has already, where `init` was never
        trained on them.
      dtype: of `hf/`; empty: that of the checkpoint.
      system: text of a system turn before each prompt, see `ChatSettings`; None: that of `init`.
      template_values: variables for the chat template, see `ChatSettings`, beside those of `init`.
      chat_template: path of a Jinja file in place of the checkpoint's template; empty: keep that.
    """

    init: str = _POCKET
    architecture: str = ""
    tag_noise: float = 0.5
    redraw_tags: bool = False
    dtype: str = "float32"
    system: str | None = None
    template_values: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str = ""

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        if not self.init:
            raise UserError("model.init is empty: name a Hugging Face folder or hub id, or pocket")
        if not self.tag_noise >= 0:
            raise UserError(f"model.tag_noise is {self.tag_noise}: it must be at least 0")
        if self.dtype and self.dtype not in DTYPES:
            raise UserError(
                f"model.dtype {self.dtype!r} is unknown: choose one of {', '.join(DTYPES)}, "
                "or '' for that of the checkpoint"
            )


def run(context: StageContext) -> None:
    """Writes `hf/`: the checkpoint, its tokenizer with tags, and rows for those that it lacked."""
    settings = read_settings(ModelSettings, context.settings, context.name)
    runtime = Runtime.read(context.runtime)
    base = base_folder(settings.init)
    tokenizer = prepare_tokenizer(
        base, settings.system, settings.chat_template, settings.template_values
    )
    dtype = settings.dtype or stored_dtype(base)
    mesh = make_mesh(runtime.training_mesh)
    # Padding is not exported: as much as the mesh needs, whatever the stages that train use.
    multiple = math.lcm(runtime.vocab_multiple, mesh.shape["tensor"])
    config = dataclasses.replace(load_config(base), param_dtype=dtype)
    config = fit_to_mesh(config, mesh, multiple)
    params = load_params(base, config, mesh)
    vocab_size = max(config.vocab_size, tokenizer.vocab_size)
    tag_ids = _untrained_tags(base, tokenizer, settings.redraw_tags)
    key = jax.random.key(context.seed)
    params, config = resize_vocab(params, config, vocab_size, tag_ids, key, settings.tag_noise)
    save(context.folder / "hf", params, config, tokenizer, dtype=dtype)


def _untrained_tags(base: Path, tokenizer: Tokenizer, redraw: bool) -> tuple[int, ...]:
    """Ids of the tags whose rows mean nothing yet."""
    had = {} if redraw else load_huggingface(base).get_vocab()
    ids = zip(TAGS, vars(tokenizer.tags).values(), strict=True)
    return tuple(id for tag, id in ids if tag not in had)


def base_folder(init: str, weights: bool = True) -> Path:
    """The folder that the setting `init` means; without `weights` their files may be missing."""
    if init == _POCKET:
        return Path(*pocket.__path__) / "base"
    try:
        return hub.resolve(init, weights)
    except UserError as error:
        raise UserError(f"model.init: {error}") from error


def planned_model(settings: Mapping[str, Any]) -> ModelConfig:
    """The shape of the model in `hf/`, for a plan."""
    init = settings.get("init", _POCKET)
    return base_model(
        init, settings.get("architecture", ""), partial(base_folder, init, weights=False)
    )
