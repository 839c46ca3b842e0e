"""Attention over a paged KV cache (serving) behind one interface, with backends by name."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged import cudnn, gather, ragged
from stair_jax.models.paged.view import LayerPages, PagedBackend, View
from stair_jax.parallel.rules import BATCH_AXES

__all__ = [
    "BACKENDS",
    "LayerPages",
    "PagedBackend",
    "View",
    "default_paged_backend",
    "get_paged_backend",
    "page_axes",
]

BACKENDS = {
    "cudnn": cudnn.BACKEND,
    "gather": gather.BACKEND,
    "ragged": ragged.BACKEND,
}
_DEFAULTS = {"gpu": "cudnn", "cuda": "cudnn", "tpu": "ragged"}


def get_paged_backend(name: str) -> PagedBackend:
    """The backend of this name, with an `attend` that is split over the mesh in use.

    Raises:
        UserError: the name is unknown; lists the known ones.
    """
    if name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise UserError(f"runtime.attention {name!r} is unknown: choose one of {known}")
    backend = BACKENDS[name]
    return backend._replace(attend=partial(_attend_on_mesh, backend))


def default_paged_backend(platform: str, dtype: str, kv_dtype: str) -> str:
    """The fastest backend of a platform for these dtypes.

    Args:
        platform: as of `jax.Device.platform`.
        dtype: of the model.
        kv_dtype: of the pages.
    """
    name = _DEFAULTS.get(platform, "gather")
    # cuDNN has no 8-bit pages, and the ragged kernel no scales, which int8 pages need.
    is_wide = kv_dtype == dtype
    if name == "cudnn" and not (is_wide and dtype in ("bfloat16", "float16")):
        return "gather"
    return "gather" if name == "ragged" and kv_dtype == "int8" else name


def page_axes(config: ModelConfig, pages: LayerPages) -> Any:
    """The logical axis names of each array of pages (or of their shapes), as PartitionSpecs."""
    heads = "activation_kv_heads" if config.shard_kv_heads else "activation_kv_heads_whole"
    return jax.tree.map(lambda _: PartitionSpec("batch", None, heads), pages)


def _attend_on_mesh(
    backend: PagedBackend,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    pages: LayerPages,
    view: View,
) -> tuple[jax.Array, LayerPages]:
    """`attend` on each device, over its own rows, heads and pages."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return backend.attend(query, key, value, pages, view)
    is_whole = key.shape[2] % mesh.shape["tensor"] != 0  # cf. `layout.fit_to_mesh`
    heads = PartitionSpec(BATCH_AXES, None, "tensor")
    kv_heads = PartitionSpec(BATCH_AXES) if is_whole else heads
    rows: Any = PartitionSpec(BATCH_AXES)
    whole: Any = PartitionSpec()
    attend = partial(_attend_whole, backend, query.shape[2]) if is_whole else backend.attend
    # `base` may be a Python int, but shard_map takes arrays only.
    return jax.shard_map(
        attend,
        in_specs=(heads, kv_heads, kv_heads, kv_heads, View(rows, rows, rows, whole)),
        out_specs=(heads, kv_heads),
        check_vma=False,
    )(query, key, value, pages, view._replace(base=jnp.asarray(view.base, jnp.int32)))


def _attend_whole(
    backend: PagedBackend,
    num_heads: int,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    pages: LayerPages,
    view: View,
) -> tuple[jax.Array, LayerPages]:
    """`attend` of this device's query heads when every device holds all KV heads.

    Backends need the same number of query heads for each KV head, which the heads of one device may
    not have. So every query head attends with every KV head, and the result with its own KV head is
    picked. That multiplies the attention of a device by the number of KV heads, but keys and
    values, which bound decoding, are read once either way.

    Args:
        backend: the backend.
        num_heads: number of query heads of all devices.
        query: [B, T, heads of this device, head_dim].
        key: [B, T, kv_heads, head_dim].
        value: as `key`.
        pages: the pages of one layer, or of all where they are stacked.
        view: see `view.View`.
    """
    *rows, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    wide = jnp.broadcast_to(query[:, :, None], (*rows, kv_heads, heads, head_dim))
    out, pages = backend.attend(
        wide.reshape(*rows, kv_heads * heads, head_dim), key, value, pages, view
    )
    first = jax.lax.axis_index("tensor") * heads
    own = (first + jnp.arange(heads)) // (num_heads // kv_heads)
    out = out.reshape(*rows, kv_heads, heads, head_dim)
    own = own[None, None, None, :, None]
    return jnp.take_along_axis(out, own, axis=2)[:, :, 0], pages
