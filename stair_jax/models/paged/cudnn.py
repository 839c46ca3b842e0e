"""Paged attention by cuDNN's flash attention, on GPUs."""

import importlib
import inspect
from types import ModuleType

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.kv_pages import KVPages, empty_pages, write
from stair_jax.models.paged.view import PagedBackend, View

_DTYPES = ("bfloat16", "float16")
_LARGEST_HEAD = 256
_INSTEAD = 'set runtime.attention="gather"'


def _empty(
    config: ModelConfig, num_pages: int, page_size: int, num_layers: int, kv_dtype: str
) -> KVPages:
    if num_layers != 1:
        raise ValueError("cudnn keeps the pages of each layer apart")
    _require_supported(config, kv_dtype)
    return empty_pages(config, num_pages, page_size, kv_dtype)


def _require_supported(config: ModelConfig, kv_dtype: str) -> None:
    """Checks what cuDNN supports.

    Raises:
        UserError: names what is not supported, and what to use instead.
    """
    if config.dtype not in _DTYPES:
        raise UserError(
            f'runtime.attention "cudnn" computes in {" or ".join(_DTYPES)}, not in '
            f"{config.dtype}: {_INSTEAD}, or another dtype"
        )
    if kv_dtype != config.dtype:
        raise UserError(
            f'runtime.attention "cudnn" keeps keys and values in {config.dtype} only, not in '
            f'{kv_dtype}: choose that dtype, or {_INSTEAD} ("ragged" on TPUs)'
        )
    if config.head_dim % 8 or config.head_dim > _LARGEST_HEAD:
        raise UserError(
            f'runtime.attention "cudnn" needs a head_dim that is a multiple of 8 and at most '
            f"{_LARGEST_HEAD}, not {config.head_dim}: {_INSTEAD}"
        )
    _cudnn()


def _cudnn() -> ModuleType:
    """JAX's private cuDNN module: the public API has no attention over pages."""
    try:
        module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
        module.check_cudnn_version()
        _ = module.dot_product_attention, module.MaskType.CAUSAL, module.AttentionLayout
        _ = module._dot_product_attention, module.MaskType.PADDING
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UserError(
            f'runtime.attention "cudnn" is not available in this installation of JAX ({error}): '
            f"{_INSTEAD}"
        ) from error
    return module


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, pages: KVPages, view: View
) -> tuple[jax.Array, KVPages]:
    pages = write(pages, key, value, view)
    if query.shape[1] == 1:
        # Idle rows attend to one token too: the kernel needs a positive length.
        seen = jnp.where(view.length > 0, view.start + 1, 1)
        return _paged(query, pages, view, seen)[0], pages
    return _chunks(query, key, value, pages, view), pages


def _chunks(
    query: jax.Array, key: jax.Array, value: jax.Array, pages: KVPages, view: View
) -> jax.Array:
    """Attention for T > 1: over the tokens before the chunk, merged with that within the chunk.

    cuDNN aligns its causal mask to the first token of the sequence, but a chunk starts later.
    Therefore two calls: pages without a causal mask, and the chunk with one. Earlier chunks of the
    same call are in the pages already.
    """
    # At least 1, as the kernel needs a positive length; the result then gets a weight of 0.
    seen = jnp.where(view.length > 0, jnp.maximum(view.start, 1), 1)
    before, before_sum = _paged(query, pages, view, seen)
    before_sum = jnp.where(view.start[:, None, None] > 0, before_sum, -jnp.inf)
    own, own_sum = _causal(query, key.astype(pages.keys.dtype), value.astype(pages.values.dtype))
    # The softmax over both parts is the mean of their softmaxes, weighted by their shares of the
    # joint denominator: exp(a) / (exp(a) + exp(b)) = sigmoid(a - b) for log-sum-exps a and b.
    share = jax.nn.sigmoid(before_sum - own_sum).transpose(0, 2, 1)[..., None]
    out = share * before.astype(jnp.float32) + (1 - share) * own.astype(jnp.float32)
    return out.astype(query.dtype)


def _causal(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Attention within chunks [B, T, heads, H], and log-sum-exps [B, heads, T]."""
    cudnn, scale = _cudnn(), query.shape[-1] ** -0.5
    return cudnn.dot_product_attention(
        query, key, value, scale=scale, mask_type=cudnn.MaskType.CAUSAL, return_residual=True
    )


def _paged(
    query: jax.Array, pages: KVPages, view: View, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attention in which all T queries of row b attend to its first seen[b] >= 1 tokens.

    Args:
        query: [B, T, heads, head_dim].
        pages: the pages of one layer.
        view: its table and base are used.
        seen: [B] int32.

    Returns:
        The attention [B, T, heads, head_dim], and for T > 1 the log-sum-exps [B, heads, T] of the
        scaled logits.
    """
    cudnn, table = _cudnn(), (view.table + view.base)[:, None, :, None]
    batch, length = query.shape[:2]
    unused = jnp.zeros(0, query.dtype)
    # The private implementation, called as the public wrapper does but without its check: that one
    # demands as many pages as all tables have entries, which cuDNN itself does not need.
    values = {
        "query": query,
        "key": pages.keys,
        "value": pages.values,
        "bias": unused,
        "q_seqlen": jnp.full(batch, length, jnp.int32),
        "kv_seqlen": seen,
        "q_offsets": unused,  # for packed queries
        "kv_offsets": unused,  # for packed keys
        "page_table_k": table,
        "page_table_v": table,
        "score_mod_args": (),
        "scale": query.shape[-1] ** -0.5,
        "seed": 42,  # for dropout
        "dropout_rate": 0.0,
        "variadic_args": (False, False),  # no bias, no gradient of one
        "mask_type": cudnn.MaskType.PADDING,
        "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": None,
        "score_mod": None,
        "cudnn_version": cudnn.check_cudnn_version(),
        "return_residual": length > 1,
    }
    attend = cudnn._dot_product_attention
    # By position, in the order of the signature: JAX 0.12 inserts two more parameters, and
    # functions with `nondiff_argnums` cannot be called with keywords.
    found = attend(*(values[name] for name in inspect.signature(attend).parameters))
    return found if length > 1 else (found, found)


BACKEND = PagedBackend(False, _empty, _attend)
