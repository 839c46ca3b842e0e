"""Attention over whole sequences (training) behind one interface, with backends by name."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.errors import UserError
from stair_jax.models.attention import cudnn, splash, xla
from stair_jax.parallel.rules import BATCH_AXES

Backend: TypeAlias = Callable[..., jax.Array]
"""`attend(query, key, value, segment_ids=None, ends=None)`, for rows of T tokens.

query is `[B, T, heads, head_dim]`, and so is the result; key and value are
`[B, T, kv_heads, head_dim]`, where heads is a multiple of kv_heads. Attention is causal within a
segment: a token attends to itself and to the earlier tokens of its row with the same segment id
(`segment_ids[B, T]`, equal ids being adjacent; None: each row is one segment). Where a row holds
trees in preorder, it attends to the earlier tokens on its path instead: `ends[B, T]` is the first
position behind the subtree of a token's segment (see `mask.visible`). With a mesh in use, rows and
heads are split over it.
"""

BACKENDS: dict[str, Backend] = {
    "cudnn": cudnn.attend,
    "splash": splash.attend,
    "xla": xla.attend,
}
# Platforms with a kernel; all others use XLA.
_KERNELS = {"gpu": "cudnn", "cuda": "cudnn", "tpu": "splash"}


def get_backend(name: str, row_sequences: int = 0) -> Backend:
    """The attention function of a backend.

    Args:
        name: a key of `BACKENDS`, or "" for the fastest one of the platform.
        row_sequences: most sequences of a row, beside padding; 0: as many as the backend allows.

    Raises:
        UserError: the name is unknown; lists the known ones.
    """
    if name and name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise UserError(
            f'attention backend {name!r} is unknown: choose one of {known}, or "" (by platform)'
        )
    return partial(_attend, name, row_sequences)


def default_backend(platform: str, dtype: Any, length: int, head_dim: int) -> str:
    """The fastest backend for given inputs.

    Args:
        platform: as of `jax.Device.platform`.
        dtype: of query, key and value.
        length: tokens per row.
        head_dim: size of a head.
    """
    name = _KERNELS.get(platform, "xla")
    # The kernel would pad shorter rows to whole blocks.
    if name == "splash" and length < splash.LANES:
        return "xla"
    return "xla" if _problem(name, dtype, length, head_dim) else name


def _problem(name: str, dtype: Any, length: int, head_dim: int) -> str:
    """Why a backend cannot handle these inputs, or ""."""
    if name == "cudnn":
        return cudnn.problem(dtype, length, head_dim)
    return splash.problem(dtype) if name == "splash" else ""


def _attend(
    name: str,
    row_sequences: int,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None = None,
    ends: jax.Array | None = None,
) -> jax.Array:
    form = (query.dtype, query.shape[1], query.shape[3])
    name = name or default_backend(_platform(), *form)
    if problem := _problem(name, *form):
        raise UserError(f'attention "{name}": {problem}: set attention="xla", or "" (by platform)')
    backend = BACKENDS[name]
    if name == "cudnn" and row_sequences:
        backend = partial(backend, most=row_sequences + 1)
    # XLA partitions its own operations, but not custom kernels: those need a shard_map.
    attend = backend if name == "xla" else partial(_attend_on_mesh, backend)
    return attend(query, key, value, segment_ids, ends)


def _platform() -> str:
    """The platform to compile for: that of the mesh in use, which may not be this machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def _attend_on_mesh(
    attend: Backend,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
) -> jax.Array:
    """Attention on each device over its own rows and heads."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return attend(query, key, value, segment_ids, ends)
    is_whole = key.shape[2] % mesh.shape["tensor"] != 0  # cf. `layout.fit_to_mesh`
    rows, heads = PartitionSpec(BATCH_AXES), PartitionSpec(BATCH_AXES, None, "tensor")
    kv_heads = rows if is_whole else heads
    specs: Any = (heads, kv_heads, kv_heads, rows, rows)
    return jax.shard_map(
        partial(_attend_whole, attend, query.shape[2]) if is_whole else attend,
        in_specs=specs,
        out_specs=heads,
        check_vma=False,
    )(query, key, value, segment_ids, ends)


def _attend_whole(
    attend: Backend,
    num_heads: int,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
) -> jax.Array:
    """Attention of this device's query heads when every device holds all KV heads.

    The heads of a device need not cover whole groups, so each query head gets a copy of its own KV
    head.

    Args:
        attend: the backend.
        num_heads: number of query heads of all devices.
        query: [B, T, heads of this device, head_dim].
        key: [B, T, kv_heads, head_dim].
        value: as `key`.
        segment_ids: [B, T] or None.
        ends: [B, T] or None.
    """
    heads = query.shape[2]
    own = jax.lax.axis_index("tensor") * heads + jnp.arange(heads)
    own //= num_heads // key.shape[2]
    key, value = (jnp.take(array, own, axis=2) for array in (key, value))
    return attend(query, key, value, segment_ids, ends)
