"""Pages with separate keys and values, in the model's dtype or in 8 bits with scales."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.view import View, put, token_slots
from stair_jax.models.quantization import LIMITS, quantize


class KVPages(NamedTuple):
    """Keys and values of one layer.

    Attributes:
        keys: [N, page_size, kv_heads, head_dim].
        values: as `keys`.
        key_scales: [N, page_size, kv_heads] float32 if the keys have 8 bits: one scale per token
            and head, by which the stored key is multiplied. Otherwise None.
        value_scales: as `key_scales`.
    """

    keys: jax.Array
    values: jax.Array
    key_scales: jax.Array | None = None
    value_scales: jax.Array | None = None


def require_kv_dtype(config: ModelConfig, kv_dtype: str) -> None:
    """Checks the dtype of the cache.

    Raises:
        UserError: `kv_dtype` is neither that of the model nor an 8-bit dtype.
    """
    known = (config.dtype, *LIMITS)
    if kv_dtype not in known:
        raise UserError(f"kv_dtype {kv_dtype!r} is unknown: choose one of {', '.join(known)}")


def empty_pages(config: ModelConfig, num_pages: int, page_size: int, kv_dtype: str) -> KVPages:
    """Creates zeroed pages of one layer.

    Raises:
        UserError: the dtype is not supported.
    """
    require_kv_dtype(config, kv_dtype)
    shape = (num_pages, page_size, config.num_key_value_heads, config.head_dim)
    # Separate buffers: one array in two places of a pytree could not be donated.
    pages = KVPages(jnp.zeros(shape, kv_dtype), jnp.zeros(shape, kv_dtype))
    if kv_dtype not in LIMITS:
        return pages
    scales = (jnp.zeros(shape[:3], jnp.float32), jnp.zeros(shape[:3], jnp.float32))
    return KVPages(*pages[:2], *scales)


def write(pages: KVPages, key: jax.Array, value: jax.Array, view: View) -> KVPages:
    """Writes key and value [B, T, kv_heads, head_dim] where the view says."""
    slots = token_slots(view, key.shape[1], pages.keys)
    if pages.key_scales is None or pages.value_scales is None:
        return KVPages(put(pages.keys, key, slots), put(pages.values, value, slots))
    key, key_scale = quantize(key, pages.keys.dtype)
    value, value_scale = quantize(value, pages.values.dtype)
    return KVPages(
        put(pages.keys, key, slots),
        put(pages.values, value, slots),
        put(pages.key_scales, key_scale, slots),
        put(pages.value_scales, value_scale, slots),
    )
