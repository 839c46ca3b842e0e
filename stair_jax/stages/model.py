"""The base checkpoint, with the four tags in its tokenizer and its embedding."""

from dataclasses import dataclass
from pathlib import Path

import jax

from stair_jax import pocket
from stair_jax.errors import UserError
from stair_jax.models.huggingface import load_config, load_params, save
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext
from stair_jax.text.tokenizer import Tokenizer, add_tags, generation_stop_ids, load_huggingface

INPUTS: tuple[str, ...] = ()
_POCKET = "pocket"


@dataclass(frozen=True)
class ModelSettings:
    """Settings of `model`.

    Attributes:
      init: a Hugging Face folder; "pocket" is the base that comes with the package.
      tag_noise: spread of the tags' rows around the mean row, in standard deviations of the rows.
      dtype: of `hf/`.
    """

    init: str = _POCKET
    tag_noise: float = 0.5
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        if not self.init:
            raise UserError("model.init is empty: name a Hugging Face folder, or pocket")
        if not self.tag_noise >= 0:
            raise UserError(f"model.tag_noise is {self.tag_noise}: it must be at least 0")


def run(context: StageContext) -> None:
    """Writes `hf/`. The rows of the tags are drawn anew, since no base was trained on them."""
    settings = read_settings(ModelSettings, context.settings, context.name)
    base = base_folder(settings.init)
    config = load_config(base)
    params = load_params(base, config)
    tokenizer = load_with_tags(base)
    vocab_size = max(config.vocab_size, tokenizer.vocab_size)
    tag_ids = tuple(vars(tokenizer.tags).values())
    key = jax.random.key(context.seed)
    params, config = resize_vocab(params, config, vocab_size, tag_ids, key, settings.tag_noise)
    save(context.folder / "hf", params, config, tokenizer, dtype=settings.dtype)


def base_folder(init: str) -> Path:
    """The folder that the setting `init` means."""
    folder = Path(*pocket.__path__) / "base" if init == _POCKET else Path(init).expanduser()
    if not folder.is_dir():
        raise UserError(f"model.init: there is no folder {folder}")
    return folder


def load_with_tags(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, with the tags added where they are missing."""
    hf = load_huggingface(folder)
    add_tags(hf)
    return Tokenizer(hf, generation_stop_ids(folder))
