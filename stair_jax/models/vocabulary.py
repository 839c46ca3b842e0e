"""New tokens of a trained model: rows that are neither zero nor alike."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

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
        params: as of `init_params`, on one device or split over several; not changed.
        config: of the model.
        vocab_size: at least that of the model.
        tag_ids: rows that count as untrained although the model has them.
        key: for the draws.
        noise: in standard deviations.

    Returns:
        Parameters and config of the new size. Arrays keep their shardings; the vocabulary is
        padded to `config.vocab_multiple` again.
    """
    if vocab_size < config.vocab_size:
        raise UserError(f"a vocabulary of {config.vocab_size} cannot shrink to {vocab_size}")
    larger = dataclasses.replace(config, vocab_size=vocab_size)
    untrained = jnp.array(sorted({*tag_ids, *range(config.vocab_size, vocab_size)}), jnp.int32)
    is_trained = jnp.ones(vocab_size, bool).at[untrained].set(False)
    resized = dict(params)
    for index, name in enumerate(name for name in ("embedding", "head") if name in params):
        rows = params[name]
        trained = rows[jnp.flatnonzero(is_trained)].astype(jnp.float32)
        draws = jax.random.normal(jax.random.fold_in(key, index), (len(untrained), rows.shape[1]))
        drawn = trained.mean(axis=0) + noise * trained.std(axis=0) * draws
        sharding = rows.sharding if rows.committed else None
        resized[name] = _with_rows(rows, untrained, drawn, larger.padded_vocab_size, sharding)
    return resized, larger


@partial(jax.jit, static_argnums=(3, 4))
def _with_rows(
    rows: jax.Array,
    places: jax.Array,
    values: jax.Array,
    num_rows: int,
    sharding: Sharding | None,
) -> jax.Array:
    """The rows, padded by zeros to `num_rows`, with `values` in their places."""
    rows = jnp.pad(rows, ((0, num_rows - len(rows)), (0, 0)))
    rows = rows.at[places].set(values.astype(rows.dtype))
    return rows if sharding is None else jax.lax.with_sharding_constraint(rows, sharding)
