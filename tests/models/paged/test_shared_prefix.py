"""Attention that reads shared pages once a group, against that of each row alone."""

import jax
import numpy as np
import pytest

from stair_jax.models.paged.backends import View, get_paged_backend
from stair_jax.models.paged.kv_pages import KVPages
from stair_jax.models.paged.shared_prefix import find_prefixes
from stair_jax.models.quantization import quantize
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh

GATHER = get_paged_backend("gather")
PAGE_SIZE, IDLE = 4, 8
# Slots 0, 1 and 5 share two pages, 1 in their middle; 2 and 3 one; 4 is alone, 6 idle; 7 had pages
# in common with 4 when the groups were found, and has another sequence now.
TABLE = np.array(
    [[1, 2, 3, 0], [1, 2, 4, 5], [6, 7, 8, 0], [6, 9, 0, 0], [10, 11, 0, 0], [1, 2, 12, 0],
     [0, 0, 0, 0], [13, 14, 15, 0]], np.int32
)  # fmt: skip
SENT = np.concatenate([TABLE[:7], [[10, 16, 0, 0]]]).astype(np.int32)
START = np.array([8, 15, 9, 6, 5, 10, 14, 8], np.int32)
LENGTH = np.array([1, 1, 1, 1, 1, 1, 0, 1], np.int32)
GROUPS = np.array(
    [[2, 0, 1, 5, IDLE], [1, 3, 2, IDLE, IDLE], [1, 4, 7, IDLE, IDLE], [0, *[IDLE] * 4]], np.int32
)
COUNTED = LENGTH > 0


def call(heads=6, kv_heads=2, seed=0):
    rng = np.random.default_rng(seed)
    new = [rng.standard_normal((8, 1, n, 8)).astype(np.float32) for n in (heads, *[kv_heads] * 2)]
    return new, rng.standard_normal((2, 17, PAGE_SIZE, kv_heads, 8)).astype(np.float32)


def both(new, pages):
    """Attention of each row alone, and of groups, with the pages of each."""
    view = View(TABLE, START, LENGTH)
    alone = jax.jit(GATHER.attend)(*new, pages, view)

    @jax.jit
    def grouped(new, pages, groups, sent, view):
        prefixes = find_prefixes(groups, sent, view.table, PAGE_SIZE)
        return GATHER.attend(*new, pages, view._replace(prefixes=prefixes))

    return alone, grouped(new, pages, GROUPS, SENT, view)


def test_prefixes_that_are_found():
    found = find_prefixes(GROUPS, SENT, TABLE, PAGE_SIZE)
    assert found.length.tolist() == [8, 4, 4, 0]
    assert found.table[:, :2].tolist() == [[1, 2], [6, 0], [10, 0], [0, 0]]
    # Slot 4 is the only one that is left of its group.
    assert found.skipped.tolist() == [8, 8, 4, 4, 4, 8, 0, 0]
    assert found.place[np.array(found.skipped) > 0].tolist() == [0, 1, 5, 4, 8, 2]
    assert found.rest[:, 0].tolist() == [3, 4, 7, 9, 11, 12, 0, 13]


@pytest.mark.parametrize("kv_dtype", ["float32", "int8"])
def test_groups_attend_as_each_row_alone(kv_dtype):
    new, pages = call()
    kept = KVPages(*pages)
    if kv_dtype == "int8":
        (keys, scales), (values, value_scales) = (quantize(x, kv_dtype) for x in pages)
        kept = KVPages(keys, values, scales, value_scales)
    (expected, written), (out, found) = both(new, kept)
    np.testing.assert_allclose(out[COUNTED], expected[COUNTED], atol=2e-6)
    assert np.isfinite(out).all()
    # Rows in no group have the bits that they would have without groups.
    np.testing.assert_array_equal(out[7], expected[7])
    jax.tree.map(np.testing.assert_array_equal, found, written)


@pytest.mark.parametrize(("shape", "kv_heads"), [((2, 1, 2), 2), ((2, 1, 4), 2)], ids=str)
def test_each_shard_has_groups_of_its_own(shape, kv_heads):
    shards = [call(heads=4, kv_heads=kv_heads, seed=seed) for seed in range(2)]
    expected = [both(new, KVPages(*pages))[0][0] for new, pages in shards]
    new = [np.concatenate(parts) for parts in zip(*(new for new, _ in shards), strict=True)]
    pages = np.concatenate([pages for _, pages in shards], axis=1)
    view = View(*(np.concatenate([rows, rows]) for rows in (TABLE, START, LENGTH)))

    @jax.jit
    def grouped(new, pages, groups, sent, view):
        prefixes = find_prefixes(groups, sent, view.table, PAGE_SIZE)
        return GATHER.attend(*new, KVPages(*pages), view._replace(prefixes=prefixes))[0]

    twice = [np.concatenate([rows, rows]) for rows in (GROUPS, SENT)]
    with use_mesh(make_mesh(MeshShape(*shape), jax.devices()[: np.prod(shape)])):
        out = grouped(new, tuple(pages), *twice, view)
    for index, own in enumerate(expected):
        np.testing.assert_allclose(out[8 * index :][:8][COUNTED], own[COUNTED], atol=2e-6)
