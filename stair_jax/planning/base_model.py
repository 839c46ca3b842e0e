"""The shape of the model that a run starts from, with or without its checkpoint."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import load_config
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.monitoring import say
from stair_jax.text import steps
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.endings import stored_stop_ids, template_end
from stair_jax.text.tokenizer import add_tags, load_huggingface


def base_model(init: str, architecture: str, resolve: Callable[[], Path]) -> ModelConfig:
    """The model in `hf/` of a `model` stage: with rows for the four tags.

    Args:
      init: the setting of that name.
      architecture: hub id of a known model of the same shape, "" for `init` itself: taken where
        the checkpoint cannot be had.
      resolve: finds the checkpoint's folder, where the weights may be missing.

    Raises:
      UserError: the checkpoint cannot be had, and no known model is named.
    """
    try:
        folder = resolve()
    except UserError:
        name = architecture or init
        if name not in KNOWN:
            raise
        say(f"there is no checkpoint {init} here: planned by the published config of {name}")
        config = ModelConfig.from_huggingface(KNOWN[name].config)
        num_tokens = KNOWN[name].num_tokens + len(steps.TAGS)
    else:
        config = dataclasses.replace(load_config(folder), lora=None)
        tokenizer = load_huggingface(folder)
        end = template_end(tokenizer, ChatSettings.load(folder))
        add_tags(tokenizer, [*stored_stop_ids(folder, tokenizer), *([] if end is None else [end])])
        num_tokens = max(tokenizer.get_vocab().values()) + 1
    return dataclasses.replace(config, vocab_size=max(config.vocab_size, num_tokens))
