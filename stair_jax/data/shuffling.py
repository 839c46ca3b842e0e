"""Shuffling of preference pairs, with pairs that share a prefix kept next to each other."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from stair_jax.data.records import PreferencePair, StepPair


def prompt_of(pair: PreferencePair) -> Hashable:
    """What pairs of one prompt have in common."""
    if not pair.is_chat:
        return pair.prompt
    return pair.prompt, pair.system, json.dumps(pair.history)


def path_of(pair: StepPair) -> Hashable:
    """What pairs of one prompt and path have in common; as sampled, where that is known."""
    return prompt_of(pair), pair.path if pair.path_tokens is None else pair.path_tokens


# What the shuffle may keep together -> the key of a pair; None: each for itself.
TOGETHER: Mapping[str, Callable[[StepPair], Hashable] | None] = {
    "pairs": None,
    "siblings": path_of,
    "prompts": prompt_of,
}


def group_keys(pairs: Sequence[StepPair], together: str) -> list[Hashable] | None:
    """A key for each pair, alike where the shuffle keeps them together, as `TOGETHER` says."""
    key = TOGETHER[together]
    return None if key is None else [key(pair) for pair in pairs]


def grouped_passes(keys: Sequence[Hashable], num_examples: int, seed: int) -> list[int]:
    """`num_examples` indices into `keys`: shuffled passes in which equal keys stay adjacent.

    Each pass has every index once, in a new order of the groups; within a group the order is kept.
    If all keys differ, the result equals that of `mixtures.shuffled_passes`.
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
