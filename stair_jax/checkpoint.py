"""Hugging Face folders in one call: config, parameters and tokenizer of a model."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from stair_jax import pocket
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import hub
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import Tokenizer, load_huggingface


class Checkpoint(NamedTuple):
    """A model as `load` reads it.

    Attributes:
      config: its shape, and the dtypes in which it is computed.
      params: of a language model, as of `init_params`; of a process reward model, which has a
        scalar head, `{"model": params, "score": {"kernel": [D]}}`.
      tokenizer: with the four tags of the answer format.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer


def load(source: str | Path, dtype: str = "float32", seed: int = 0) -> Checkpoint:
    """Reads a model onto the default device; adapters are merged into their base.

    A tokenizer that lacks the four tags of the answer format gets them, and the model's embedding
    gets rows for them: random ones, around the mean of the trained rows (`resize_vocab`).

    Args:
      source: a Hugging Face folder, or one of adapters as peft saves them; an id of its hub such as
        "Qwen/Qwen2-7B-Instruct", which is fetched into the cache; or "pocket", the small base model
        that comes with the package.
      dtype: of parameters and activations: "float32", "bfloat16" or "float16".
      seed: of new rows.

    Raises:
      UserError: there is no such folder or id, a file is missing or damaged, or the model is of a
        family that is not supported.
    """
    is_pocket = str(source) == "pocket"
    folder = Path(*pocket.__path__) / "base" if is_pocket else hub.resolve(str(source))
    config = huggingface.load_config(folder)
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype, lora=None)
    tokenizer = prepare_tokenizer(folder)
    params = huggingface.load_params(folder, config)
    known = load_huggingface(folder).get_vocab()
    ids = zip(TAGS, vars(tokenizer.tags).values(), strict=True)
    untrained = [id for tag, id in ids if tag not in known]
    if untrained or tokenizer.vocab_size > config.vocab_size:
        vocab_size = max(config.vocab_size, tokenizer.vocab_size)
        params, config = resize_vocab(params, config, vocab_size, untrained, jax.random.key(seed))
    if huggingface.has_score_head(folder):
        params = {"model": params, "score": huggingface.load_score_head(folder)}
    return Checkpoint(config, params, tokenizer)


def save(
    folder: str | Path,
    config: ModelConfig,
    params: dict[str, Any],
    tokenizer: Tokenizer,
    dtype: str = "float32",
) -> None:
    """Writes a Hugging Face folder that `load` and transformers read.

    It takes the place of what is at `folder`, whole or not at all.

    Args:
      folder: where to.
      config: of the model.
      params: of a language model, or of a process reward model; see `Checkpoint`. The latter is
        written as a sequence classifier with one label.
      tokenizer: of the model.
      dtype: of the tensors: "float32", "bfloat16" or "float16".

    Raises:
      UserError: a value is not finite in `dtype`, the tokenizer has more tokens than the model, or
        the disk cannot be written.
    """
    is_prm = "score" in params
    huggingface.save(
        folder,
        params["model"] if is_prm else params,
        config,
        tokenizer,
        params["score"] if is_prm else None,
        dtype,
    )
