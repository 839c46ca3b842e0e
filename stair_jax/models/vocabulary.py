"""Adds tokens to a trained model, with rows that are neither zero nor all equal."""

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
    """Grows the vocabulary, and initialises the new rows and those of `tag_ids`.

    Each new row is drawn from a normal distribution per dimension, with the mean of the trained
    rows and `noise` times their standard deviation. Rows that are equal, or of the small common
    norm of untrained rows, would make the new tokens hard to tell apart. An untied head is treated
    in the same way, with draws of its own.

    Args:
        params: as of `init_params`, on one device or sharded; not changed.
        config: the model config.
        vocab_size: new number of tokens, at least the present one.
        tag_ids: existing token ids whose rows count as untrained.
        key: random key of the draws.
        noise: scale of the draws, in standard deviations.

    Returns:
        Parameters and config of the new size. Arrays keep their shardings, and the vocabulary is
        padded to `config.vocab_multiple`.

    Raises:
        UserError: `vocab_size` is less than that of the model.
    """
    if vocab_size < config.vocab_size:
        raise UserError(f"a vocabulary of {config.vocab_size} cannot shrink to {vocab_size}")
    larger = dataclasses.replace(config, vocab_size=vocab_size)
    untrained = jnp.array(sorted({*tag_ids, *range(config.vocab_size, vocab_size)}), jnp.int32)
    # Padding rows and untrained rows are left out of mean and standard deviation.
    is_trained = jnp.ones(vocab_size, bool).at[untrained].set(False)
    resized = dict(params)
    for index, name in enumerate(name for name in ("embedding", "head") if name in params):
        rows = params[name]
        trained = rows[jnp.flatnonzero(is_trained)].astype(jnp.float32)
        draws = jax.random.normal(jax.random.fold_in(key, index), (len(untrained), rows.shape[1]))
        drawn = trained.mean(axis=0) + noise * trained.std(axis=0) * draws
        # An array that is not committed to devices stays free to move.
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
    """Pads the rows [V, D] with zeros to `num_rows`, and sets those at `places` to `values`."""
    rows = jnp.pad(rows, ((0, num_rows - len(rows)), (0, 0)))
    rows = rows.at[places].set(values.astype(rows.dtype))
    return rows if sharding is None else jax.lax.with_sharding_constraint(rows, sharding)
