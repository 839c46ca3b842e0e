"""The adapters with which a training stage starts."""

import dataclasses

from jax.sharding import Mesh

from stair_jax.models import lora
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params, new_adapters
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.lora_settings import LoraSettings


def num_kept(config: ModelConfig, settings: LoraSettings) -> int:
    """How many of the ranks of each adapter are frozen, as they are of an earlier stage."""
    assert config.lora is not None
    return config.lora.rank - settings.rank if settings.stack else 0


def with_tags(config: ModelConfig, before: lora.Lora | None, tokenizer: Tokenizer) -> ModelConfig:
    """The config with the ids of the tags, where their rows are trained and no stage has before."""
    own = config.lora
    if own is None or not own.token_ids or (before and before.token_ids):
        return config
    ids = tuple(sorted(vars(tokenizer.tags).values()))
    return dataclasses.replace(config, lora=dataclasses.replace(own, token_ids=ids))


def start(
    config: ModelConfig,
    settings: LoraSettings,
    before: lora.Lora | None,
    params: Params,
    mesh: Mesh,
    seed: int,
) -> Params:
    """A model with the adapters of `config`, with which it is the same as it was.

    Args:
      config: with the adapters that the stage has, see `LoraSettings.adapters_on`.
      settings: of the stage.
      before: the adapters that are in `params`; None: there are none.
      params: of the model.
      mesh: the devices.
      seed: of new adapters.
    """
    own, whole = settings.adapters, config.lora
    assert own is not None and whole is not None
    if before is None or settings.stack:
        if before is not None:
            params = lora.rescaled(params, before.scale / own.scale)
        # Stacked ones are drawn apart from those that were made with the same seed before.
        drawn = seed + num_kept(config, settings)
        new = new_adapters(dataclasses.replace(config, lora=own), mesh, drawn)
        params = lora.join(params, new)
    if whole.token_ids and not (before and before.token_ids):
        params = {**params, **lora.own_rows(params, whole.token_ids, whole.dtype)}
    return params
