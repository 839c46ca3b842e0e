"""Shuffling of preference pairs, with pairs that share a prefix kept next to each other."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from stair_jax.data.sequences import Row


def prompt_of(row: Row) -> Hashable:
    """Grouping key: pairs of one prompt."""
    return row["prompt"]


def path_of(row: Row) -> Hashable:
    """Grouping key: pairs of one prompt and one path, i.e. of children of one node.

    By the sampled tokens of the path if they are known, else by its texts.
    """
    sampled = row.get("path_tokens")
    return row["prompt"], tuple(row["path"] if sampled is None else sampled)


# Setting `together` -> the grouping key of a pair; None: every pair on its own.
TOGETHER: Mapping[str, Callable[[Row], Hashable] | None] = {
    "pairs": None,
    "siblings": path_of,
    "prompts": prompt_of,
}


def keys_of(rows: Sequence[Row], together: str) -> list[Hashable] | None:
    """The grouping key of each pair; None if no pairs are kept together.

    Args:
      rows: the pairs.
      together: a key of `TOGETHER`.
    """
    key = TOGETHER[together]
    return None if key is None else [key(row) for row in rows]


def grouped_passes(keys: Sequence[Hashable], num_examples: int, seed: int) -> list[int]:
    """`num_examples` indices into `keys`: shuffled passes in which equal keys stay adjacent.

    Each pass has every index once, in a new order of the groups; within a group the order is kept.
    If all keys differ, the result equals that of `tasks.shuffled_passes`.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    members = list(groups.values())
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < num_examples:
        order += [
            index for group in generator.permutation(len(members)) for index in members[group]
        ]
    return order[:num_examples]
