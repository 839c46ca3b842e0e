"""Groups of slots whose sequences begin with the same pages, for `models/paged/shared_prefix.py`.

A running sequence shares the full pages of the handle that it continues, and nothing else: so slots
whose page tables begin alike have these tokens in common. A group reads them once.
"""

from typing import NamedTuple

import numpy as np

from stair_jax.decoding.cache.page_pool import PageIds
from stair_jax.errors import UserError

# A search samples the children of a node together, four of them in the paper.
_SIBLINGS = 4


class PrefixGroup(NamedTuple):
    """Slots that share pages.

    Attributes:
        pages: how many of their first pages they share.
        slots: their indices.
    """

    pages: int
    slots: list[int]


def require_least(least: int) -> None:
    """Checks the least size of a group.

    Raises:
        UserError: it is negative or 1.
    """
    if least < 0 or least == 1:
        raise UserError(
            f"share_prefixes of an engine is {least}: it must be 0 (off), or the least number of "
            "slots that read a prefix together, 2 or more"
        )


def most_members(least: int) -> int:
    """Most slots of a group whose least number is `least`: larger ones are several groups."""
    return max(least, _SIBLINGS)


def find_groups(tables: PageIds, least: int) -> list[PrefixGroup]:
    """The groups of a shard, so that as few pages as possible are read.

    In the order of their page tables, slots that share pages stand side by side: a dynamic program
    over this order decides where groups begin and end.

    Args:
        tables: [S, W] int32, page ids of each slot's sequence, padded with 0.
        least: slots of the smallest group; the largest has `most_members(least)`.
    """
    order, common = _sorted(tables)
    # Of the first n slots: most page reads saved, and the size of the last group (0: none).
    saved, sizes = [0, 0], [0, 0]
    most = most_members(least)
    for end in range(2, len(order) + 1):
        best, best_size = saved[end - 1], 0
        shared = common[end - 2]
        for size in range(2, min(most, end) + 1):
            shared = min(shared, common[end - size])
            if not shared:
                break
            found = saved[end - size] + (size - 1) * shared
            if size >= least and found > best:
                best, best_size = found, size
        saved.append(best)
        sizes.append(best_size)
    groups, end = [], len(order)
    while end > 0:
        size = sizes[end]
        if size:
            groups.append(PrefixGroup(min(common[end - size : end - 1]), order[end - size : end]))
        end -= size or 1
    return groups


def _sorted(tables: PageIds) -> tuple[list[int], list[int]]:
    """The slots in use in the order of their tables, and how many first pages neighbours share."""
    # As strings of big-endian numbers: one sort by memory order in place of one a column.
    keys = np.ascontiguousarray(tables, ">i4").view(f"S{4 * tables.shape[1]}").ravel()
    order = np.argsort(keys, kind="stable")
    order = order[tables[order, 0] > 0]
    rows = tables[order]
    differ = (rows[1:] != rows[:-1]) | (rows[1:] == 0)
    common = np.where(differ.any(axis=1), differ.argmax(axis=1), tables.shape[1])
    return order.tolist(), common.tolist()


def pack_groups(tables: PageIds, least: int) -> np.ndarray:
    """Packs the groups of a shard as the decode program takes them.

    Args:
        tables: as of `find_groups`.
        least: as of `find_groups`, at most the number of slots.

    Returns:
        [S // least, 1 + most_members(least)] int32: the number of shared pages, and the slots, with
        S in the place of those that a group lacks. Of a group that is not in use, 0 and only S.
    """
    num_slots = len(tables)
    packed = np.full((num_slots // least, 1 + most_members(least)), num_slots, np.int32)
    packed[:, 0] = 0
    for row, group in zip(packed, find_groups(tables, least), strict=False):
        row[0] = group.pages
        row[1 : 1 + len(group.slots)] = group.slots
    return packed
