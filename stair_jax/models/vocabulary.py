"""New tokens of a trained model: rows that are neither zero nor alike."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params


def resize_vocab(
    params: Params,
    config: ModelConfig,
    vocab_size: int,
    tag_ids: Sequence[int],
    key: jax.Array,
    noise: float = 0.5,
) -> tuple[Params, ModelConfig]:
    """Adds rows up to `vocab_size`, and initialises these and the rows of `tag_ids`.

    A row is drawn, in each dimension, around the mean of the trained rows with `noise` times
    their standard deviation: rows that were never trained share one norm and are confused with
    one another. An untied head is treated alike, with draws of its own.

    Args:
        params: as of `init_params`; not changed.
        config: of the model.
        vocab_size: at least that of the model.
        tag_ids: rows that count as untrained although the model has them.
        key: for the draws.
        noise: in standard deviations.

    Returns:
        Parameters and config of the new size.
    """
    if vocab_size < config.vocab_size:
        raise UserError(f"a vocabulary of {config.vocab_size} cannot shrink to {vocab_size}")
    untrained = jnp.array(sorted({*tag_ids, *range(config.vocab_size, vocab_size)}), jnp.int32)
    resized = dict(params)
    for index, name in enumerate(name for name in ("embedding", "head") if name in params):
        draw = jax.random.fold_in(key, index)
        resized[name] = _with_new_rows(params[name], vocab_size, untrained, draw, noise)
    return resized, dataclasses.replace(config, vocab_size=vocab_size)


def _with_new_rows(
    rows: jax.Array, vocab_size: int, untrained: jax.Array, key: jax.Array, noise: float
) -> jax.Array:
    is_trained = jnp.ones(vocab_size, bool).at[untrained].set(False)
    trained = rows[jnp.flatnonzero(is_trained)].astype(jnp.float32)
    draws = jax.random.normal(key, (len(untrained), rows.shape[1]))
    drawn = trained.mean(axis=0) + noise * trained.std(axis=0) * draws
    padded = jnp.pad(rows, ((0, vocab_size - len(rows)), (0, 0)))
    return padded.at[untrained].set(drawn.astype(rows.dtype))
