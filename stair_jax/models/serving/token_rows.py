"""Rows of embedding and head that models with adapters have of their own (`models/lora.py`)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import ROWS, Lora
from stair_jax.models.transformer import Params


class TokenRows(NamedTuple):
    """What stands in place of rows of the tables, for N models, at most K tokens each.

    Attributes:
        ids: [N, K] int32 token ids; -1 where a model has fewer.
        embedding: [N, K, D], in `config.dtype`.
        head: the same; None if it is tied to the embedding.
    """

    ids: jax.Array
    embedding: jax.Array
    head: jax.Array | None


def make_token_rows(
    config: ModelConfig, loras: Sequence[Lora], params: Sequence[Params]
) -> TokenRows | None:
    """The rows of models with adapters; None: no model has any.

    Args:
        config: the model config.
        loras: of each model.
        params: of each model, with its rows beside the layers.
    """
    count = max(len(lora.token_ids) for lora in loras)
    if not count:
        return None
    ids = np.full((len(loras), count), -1, np.int32)
    for index, lora in enumerate(loras):
        ids[index, : len(lora.token_ids)] = lora.token_ids

    def stacked(name: str) -> jax.Array:
        empty = jnp.zeros((0, config.hidden_size))
        own = [each.get(name + ROWS, empty).astype(config.dtype) for each in params]
        return jnp.stack([jnp.pad(rows, ((0, count - len(rows)), (0, 0))) for rows in own])

    head = None if config.tie_word_embeddings else stacked("head")
    return TokenRows(jnp.asarray(ids), stacked("embedding"), head)


def embed_own(embedded: jax.Array, tokens: jax.Array, rows: TokenRows, own: jax.Array) -> jax.Array:
    """Puts the rows that the models have of their own in the place of those of the table.

    Args:
        embedded: [B, T, D], rows of the table.
        tokens: [B, T] token ids.
        rows: of the models.
        own: [B * T, N] bool, the models of the tokens, at most one each.
    """
    chosen = own[..., None] & (tokens.reshape(-1, 1, 1) == rows.ids)
    found = jnp.einsum("mnk,nkd->md", chosen.astype(embedded.dtype), rows.embedding)
    is_own = jnp.any(chosen, axis=(1, 2)).reshape(*tokens.shape, 1)
    return jnp.where(is_own, found.reshape(embedded.shape), embedded)


def own_logits(logits: jax.Array, hidden: jax.Array, rows: TokenRows, own: jax.Array) -> jax.Array:
    """Puts the logits by the rows of the models in the place of those by the table.

    Args:
        logits: [B, V] float32, by the table.
        hidden: [B, D], after the last norm.
        rows: of the models.
        own: [B, N] bool, the model of each row, at most one.
    """
    head = rows.embedding if rows.head is None else rows.head
    found = jnp.einsum("bd,nkd->bnk", hidden, head, preferred_element_type=jnp.float32)
    tokens = jnp.arange(logits.shape[1], dtype=jnp.int32)
    # One pass over the logits, wherever they lie: no gather or scatter along a split vocabulary.
    for model, place in np.ndindex(*rows.ids.shape):
        is_own = own[:, model, None] & (tokens == rows.ids[model, place])
        logits = jnp.where(is_own, found[:, model, place, None], logits)
    return logits
