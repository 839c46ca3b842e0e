"""Rows that are held out of training, chosen by a hash of their prompts.

All rows of a prompt are on one side, so that nothing of a held-out row is trained on. A hash
chooses the same prompts whatever else a file holds, in whatever order, and for every seed: of rows
that are added later, none moves those that were there (of a share; a number of rows is filled up).
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from stair_jax.errors import UserError

_HASHES = 2**64


class Split(NamedTuple):
    """Numbers of the rows of each side, in the order of the rows."""

    training: list[int]
    held_out: list[int]


def check_amount(amount: float) -> None:
    """Raises a UserError unless `amount` is a share below 1 or a whole number."""
    if amount >= 1 and amount != int(amount):
        raise UserError(
            f"held_out is {amount:g}: it must be a share below 1, or a whole number of rows"
        )


def split_held_out(prompts: Sequence[str], amount: float) -> Split:
    """Splits rows.

    Args:
      prompts: of each row.
      amount: below 1: about this share of the prompts, those whose hash is below it. From 1: at
        least so many rows, of the prompts with the smallest hashes. 0: none.

    Raises:
      UserError: no row, or no prompt at all, is left on one side.
    """
    check_amount(amount)
    if not amount or not prompts:
        return Split(list(range(len(prompts))), [])
    hashes = {prompt: _hash(prompt) for prompt in prompts}
    if amount < 1:
        held = {prompt for prompt, value in hashes.items() if value < amount * _HASHES}
    else:
        held = _first(prompts, hashes, int(amount))
    split = Split([], [])
    for number, prompt in enumerate(prompts):
        split[prompt in held].append(number)
    if not all(split):
        side = "train on" if not split.training else "hold out"
        raise UserError(
            f"held_out is {amount:g}: of {len(prompts)} rows with {len(hashes)} prompts it leaves "
            f"none to {side}; another share, or a number of rows"
        )
    return split


def _first(prompts: Sequence[str], hashes: dict[str, int], count: int) -> set[str]:
    """The prompts with the smallest hashes that have `count` rows together."""
    sizes: dict[str, int] = dict.fromkeys(hashes, 0)
    for prompt in prompts:
        sizes[prompt] += 1
    held: set[str] = set()
    for prompt in sorted(hashes, key=lambda prompt: (hashes[prompt], prompt)):
        if count <= 0:
            break
        held.add(prompt)
        count -= sizes[prompt]
    return held


def _hash(prompt: str) -> int:
    digest = hashlib.sha256(b"held out\n" + prompt.strip().encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest()[:8])
