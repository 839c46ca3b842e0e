"""Decoding that reads the pages which several slots share once for all of them.

Slots whose sequences begin with the same pages form groups. The queries of a group are stacked and
attend to the shared pages in one row; each slot attends to the rest of its own sequence, and both
parts are merged by their log-sum-exps. As in Hydragen (https://arxiv.org/abs/2402.05099), with one
level of sharing and groups of at most M slots.

The heads of a KV head are stacked as queries as well: they see the same keys, so that an attention
kernel reads these once for all of them.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.models.paged.kv_pages import KVPages, write
from stair_jax.models.paged.merging import merge
from stair_jax.models.paged.view import PagedBackend, SharedPrefixes, View
from stair_jax.parallel.rules import BATCH_AXES


def find_prefixes(
    groups: jax.Array, sent: jax.Array, table: jax.Array, page_size: int
) -> SharedPrefixes:
    """Where shared prefixes and the rests of S slots are in the cache; on a mesh in each shard.

    Args:
        groups: [G, 1 + M] int32, see `decoding/prefix_groups.py`.
        sent: [S, W] int32, page ids of the slots when the groups were found.
        table: [S, W] int32, page ids of the slots now. A slot that has got another sequence since
            then leaves its group, unless that sequence begins with the same pages.
        page_size: tokens per page.
    """

    def of_shard(groups: jax.Array, sent: jax.Array, table: jax.Array) -> SharedPrefixes:
        counts, members = groups[:, 0], groups[:, 1:]
        (num_slots, width), size = table.shape, members.shape[1]
        columns = jnp.arange(width, dtype=jnp.int32)
        is_shared = columns < counts[:, None]
        inside = jnp.minimum(members, num_slots - 1)
        prefix = jnp.where(is_shared, sent[inside[:, 0]], 0)
        agrees = (table[inside] == prefix[:, None]) | ~is_shared[:, None]
        is_member = jnp.all(agrees, axis=-1) & (members < num_slots)
        slots = jnp.where(is_member, members, num_slots).reshape(-1)
        place = jnp.full(num_slots, -1, jnp.int32)
        place = place.at[slots].set(jnp.arange(len(slots), dtype=jnp.int32), mode="drop")
        skipped = jnp.where(place >= 0, counts[place // size], 0)
        rest = jnp.minimum(columns + skipped[:, None], width - 1)
        return SharedPrefixes(
            table=prefix,
            length=counts * page_size,
            members=inside,
            place=jnp.maximum(place, 0),
            rest=jnp.take_along_axis(table, rest, axis=1),
            skipped=skipped * page_size,
        )

    if jax.sharding.get_abstract_mesh().size > 1:
        split = PartitionSpec(BATCH_AXES)
        of_shard = jax.shard_map(of_shard, in_specs=split, out_specs=split, check_vma=False)
    return of_shard(groups, sent, table)


def sharing(backend: PagedBackend) -> PagedBackend:
    """The backend with an `attend` that reads the prefixes of `view.prefixes` once a group."""
    attend_seen = backend.attend_seen
    assert attend_seen is not None

    def attend(
        query: jax.Array, key: jax.Array, value: jax.Array, pages: KVPages, view: View
    ) -> tuple[jax.Array, KVPages]:
        prefixes = view.prefixes
        assert prefixes is not None and query.shape[1] == 1
        pages = write(pages, key, value, view)
        queries = _as_queries(query, key.shape[2])
        # Idle rows, and groups without members, attend to one token: kernels need one.
        seen = jnp.where(view.length > 0, view.start + 1 - prefixes.skipped, 1)
        rest = attend_seen(queries, pages, view._replace(table=prefixes.rest), seen)
        stacked = queries[prefixes.members]  # [G, M, R, kv_heads, head_dim]
        num_groups, size, each = stacked.shape[:3]
        stacked = stacked.reshape(num_groups, size * each, *stacked.shape[3:])
        common, common_sum = attend_seen(
            stacked,
            pages,
            view._replace(table=prefixes.table),
            jnp.maximum(prefixes.length, 1),
        )
        common = common.reshape(num_groups * size, each, *common.shape[2:])[prefixes.place]
        common_sum = common_sum.reshape(num_groups, -1, size, each).swapaxes(1, 2)
        common_sum = common_sum.reshape(num_groups * size, -1, each)[prefixes.place]
        is_member = (prefixes.skipped > 0)[:, None, None]
        out = merge(common, jnp.where(is_member, common_sum, -jnp.inf), *rest)
        return _as_heads(out), pages

    return backend._replace(attend=attend)


def _as_queries(query: jax.Array, kv_heads: int) -> jax.Array:
    """[B, 1, heads, H] as [B, R, kv_heads, H]: the R heads of each KV head as queries of it."""
    batch, _, heads, head_dim = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads, head_dim).swapaxes(1, 2)


def _as_heads(out: jax.Array) -> jax.Array:
    """The inverse of `_as_queries`."""
    batch, each, kv_heads, head_dim = out.shape
    return out.swapaxes(1, 2).reshape(batch, 1, kv_heads * each, head_dim)
