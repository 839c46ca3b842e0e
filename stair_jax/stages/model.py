"""The base checkpoint, with the four tags in its tokenizer and its embedding."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from stair_jax import pocket
from stair_jax.adapter_folders import find_base, is_adapter_folder
from stair_jax.errors import UserError
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.huggingface import (
    has_score_head,
    hub,
    load_config,
    load_params,
    save,
    stored_dtype,
)
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.monitoring import say
from stair_jax.planning.base_model import base_model
from stair_jax.planning.needs import Needs, Work
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.meshes import checkpoint_bytes, training_mesh
from stair_jax.run.runtime import Runtime
from stair_jax.run.stage import Artifact, Stage
from stair_jax.settings import setting
from stair_jax.stages.stage_needs import copy_needs
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.probes import check_encoding
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import Tokenizer, load_huggingface

_POCKET = "pocket"


@dataclass(frozen=True)
class Model(Stage):
    """Settings of `model`.

    Attributes:
      init: a Hugging Face folder, an id of its hub such as `Qwen/Qwen2-7B-Instruct`, or "pocket",
        the base that comes with the package. Adapters (LoRA, in PEFT's format) are merged into
        their base.
      architecture: hub id of a model of the same shape, for a plan made without the checkpoint;
        empty: `init`.
      tag_noise: spread of the new tags' rows around the mean row, in standard deviations of the
        rows.
      redraw_tags: draw the rows of tags too that the tokenizer has already, where `init` was never
        trained on them.
      dtype: of `hf/`; empty: that of the checkpoint.
      system: text of a system turn before each prompt, see `ChatSettings`; None: that of `init`.
      template_values: variables for the chat template, see `ChatSettings`, beside those of `init`.
      chat_template: in place of the checkpoint's template, the path of a Jinja file, or the name of
        one that comes with the package: "llama3_undated", for Llama 3 and 3.1, without the dated
        system turn that 3.1 always writes; empty: keep the checkpoint's.
    """

    # 2: all that names the end of a turn is heeded, and what a template opens is closed.
    VERSION: ClassVar[int] = 2

    init: str = _POCKET
    architecture: str = setting("", cost=True)
    tag_noise: float = setting(0.5, least=0)
    redraw_tags: bool = False
    dtype: str = setting("float32", choices=("", *DTYPES))
    system: str | None = None
    template_values: Mapping[str, Any] = setting(dict)
    chat_template: str = ""

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if not self.init:
            raise UserError("init is empty: name a Hugging Face folder or hub id, or pocket")
        ChatSettings(self.system, self.template_values)

    def makes(self) -> Mapping[str, Artifact]:
        """A language model."""
        return {"hf": Artifact.MODEL}

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """The files of a local checkpoint, or the commit of one of the hub; and the template."""
        found: dict[str, Sequence[Path] | str] = {}
        if self.init != _POCKET and (content := hub.source_files(self.init)) is not None:
            found[self.init] = content
        template = Path(self.chat_template).expanduser()
        if self.chat_template and template.is_file():
            found[self.chat_template] = [template]
        return found

    def check_environment(self, folder: Path) -> None:
        """Checks that the checkpoint is there, can be read, and its template renders a prompt.

        Of a checkpoint on the hub only its description is fetched.
        """
        base = base_folder(self.init, weights=False)
        load_config(base)
        is_here = self.init == _POCKET or Path(self.init).expanduser().is_dir()
        if is_here and (not is_adapter_folder(base) or find_base(base)):
            stored_dtype(base)
            _refuse_reward_model(base)
        self._tokenizer(base)

    def check_devices(self, context: PlanContext) -> None:
        """Checks that the mesh divides the model."""
        self._lay_out(self.planned_model({}), context.runtime, context.devices)

    def run(self, context: StageContext) -> None:
        """Writes `hf/`: the checkpoint, its tokenizer with tags, and rows for new ones."""
        base = base_folder(self.init)
        _refuse_reward_model(base)
        tokenizer = self._tokenizer(base)
        say(f"{context.name}: {tokenizer.describe_ends()}")
        dtype = self.dtype or stored_dtype(base)
        model = dataclasses.replace(load_config(base), param_dtype=dtype, lora=None)
        config, mesh = self._lay_out(model, context.runtime)
        params = load_params(base, config, mesh)
        vocab_size = max(config.vocab_size, tokenizer.vocab_size)
        tag_ids = _untrained_tags(base, tokenizer, self.redraw_tags)
        key = jax.random.key(context.seed)
        params, config = resize_vocab(params, config, vocab_size, tag_ids, key, self.tag_noise)
        save(context.folder / "hf", params, config, tokenizer, dtype=dtype)

    def planned_model(self, inputs: Mapping[str, tuple[ModelConfig, ...]]) -> ModelConfig:
        """The shape of the model in `hf/`."""
        found = partial(base_folder, self.init, weights=False)
        return base_model(self.init, self.architecture, found)

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """The checkpoint is read and written."""
        return copy_needs(self, self.planned_model({}), self.dtype or "bfloat16", work)

    def model_bytes(self, model: ModelConfig | None) -> int:
        """The weights."""
        return checkpoint_bytes(model, self.dtype or self._stored_dtype())

    def _stored_dtype(self) -> str:
        """Of the checkpoint; of one that is not in a folder here, that of nearly all."""
        if self.init == _POCKET or Path(self.init).expanduser().is_dir():
            return stored_dtype(base_folder(self.init))
        return "bfloat16"

    def amount(self) -> str:
        """The checkpoint."""
        return self.init

    def _tokenizer(self, base: Path) -> Tokenizer:
        """The tokenizer of the checkpoint, prepared, and found to agree with transformers."""
        tokenizer = prepare_tokenizer(base, self.system, self.chat_template, self.template_values)
        if tokenizer.hf.chat_template:
            try:
                check_encoding(tokenizer)
            except UserError as error:
                raise UserError(f"{base}: {error}") from error
        return tokenizer

    def _lay_out(
        self, model: ModelConfig, runtime: Runtime, devices: Sequence[jax.Device] | None = None
    ) -> tuple[ModelConfig, Mesh]:
        """The model on the mesh that trains.

        Padding is not exported: as much as the mesh needs, whatever the stages that train use.
        """
        mesh = training_mesh(runtime, model, devices=devices)
        multiple = math.lcm(runtime.vocab_multiple, mesh.shape["tensor"])
        return fit_to_mesh(model, mesh, multiple), mesh


def _untrained_tags(base: Path, tokenizer: Tokenizer, redraw: bool) -> tuple[int, ...]:
    """Ids of the tags whose rows mean nothing yet."""
    had = {} if redraw else load_huggingface(base).get_vocab()
    ids = zip(TAGS, vars(tokenizer.tags).values(), strict=True)
    return tuple(id for tag, id in ids if tag not in had)


def _refuse_reward_model(base: Path) -> None:
    if has_score_head(base):
        raise UserError(
            f"model.init: {base} is a reward model or a classifier: name a language model"
        )


def base_folder(init: str, weights: bool = True) -> Path:
    """The folder that the setting `init` means; without `weights` their files may be missing."""
    if init == _POCKET:
        return Path(*pocket.__path__) / "base"
    try:
        return hub.resolve(init, weights)
    except UserError as error:
        raise UserError(f"model.init: {error}") from error
