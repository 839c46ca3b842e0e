"""Texts that nearly repeat an earlier one, found in time linear in their number.

MinHash with bands (Broder, 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
section 3.4): texts that share a band of their signatures are compared, with `jaccard` over their
content words. A pair of similarity s shares one of b bands of r rows with probability
1 - (1 - s^r)^b: with b = 20 and r = 4, .996 at s = .7, and .9999 at s = .8. Each text is compared
with a few earlier ones of each band at most, so that a template with a word exchanged, ten thousand
times over, costs no more than other texts.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stair_jax.data.decontamination import content_words, jaccard, normalised

BANDS, ROWS = 20, 4
_MOST_COMPARED = 8  # earlier texts of a band
_SEED = 0


class Repeat(NamedTuple):
    """A text that repeats an earlier one.

    Attributes:
      first: index of the earlier text, which itself repeats none.
      value: their similarity; 1 where the normalised texts are the same.
      is_equal: whether they are.
    """

    first: int
    value: float
    is_equal: bool


def find_repeats(texts: Sequence[str], least: float = 0.7, min_words: int = 3) -> dict[int, Repeat]:
    """The texts that repeat an earlier one, by their index, in order.

    Words are told apart by spaces and punctuation: of a script that has none between words, texts
    that are equal are found, and few others.

    Args:
      texts: in an order that says which of two is the earlier one.
      least: Jaccard similarity of the content words from which on two texts count as the same.
      min_words: content words that both have at least to be compared so.
    """
    plain = [normalised(text) for text in texts]
    firsts: dict[str, int] = {}
    repeats = {}
    for number, text in enumerate(plain):
        if text and (first := firsts.setdefault(text, number)) != number:
            repeats[number] = Repeat(first, 1.0, True)
    words = {number: content_words(text) for text, number in firsts.items()}
    kept = [number for number, found in words.items() if len(found) >= min_words]
    for number, first, value in _near([words[number] for number in kept], least):
        repeats[kept[number]] = Repeat(kept[first], value, False)
    return {number: _settled(repeats, number) for number in sorted(repeats)}


def _settled(repeats: dict[int, Repeat], number: int) -> Repeat:
    """A repeat of an equal text that is itself near an earlier one, as near that one."""
    found = repeats[number]
    return repeats.get(found.first, found) if found.is_equal else found


def _near(words: Sequence[frozenset[str]], least: float) -> list[tuple[int, int, float]]:
    """(index, index of an earlier text that is kept, similarity) of those that are near one."""
    buckets = _buckets(words)
    members: dict[int, list[int]] = {}
    found = []
    for number in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        own = [bucket for bucket in buckets[number].tolist() if bucket >= 0]
        others = {other for bucket in own for other in members.get(bucket, ())}
        value, minus = max(
            ((jaccard(words[number], words[other]), -other) for other in others), default=(0.0, 0)
        )
        if others and value >= least:
            found.append((number, -minus, value))
            continue
        for bucket in own:
            listed = members.setdefault(bucket, [])
            if len(listed) < _MOST_COMPARED:
                listed.append(number)
    return found


def _buckets(words: Sequence[frozenset[str]]) -> np.ndarray:
    """For each text and band, the number of the bucket that it shares with others; -1: none.

    Returns:
      int64 [texts, BANDS].
    """
    buckets = np.full((len(words), BANDS), -1, np.int64)
    if not words:
        return buckets
    hashes, ids, starts = _hashed(words)
    draw = np.random.default_rng(_SEED)
    base = 0
    for band in range(BANDS):
        key = np.zeros(len(words), np.uint64)
        for _ in range(ROWS):
            factor, addend = (int(draw.integers(2**63)) for _ in range(2))
            mixed = _mixed(hashes * np.uint64(2 * factor + 1) + np.uint64(addend))
            key = _mixed(key * np.uint64(3) + np.minimum.reduceat(mixed[ids], starts))
        _, group, counts = np.unique(key, return_inverse=True, return_counts=True)
        buckets[:, band] = np.where(counts[group] > 1, base + group, -1)
        base += len(counts)
    return buckets


def _hashed(words: Sequence[frozenset[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a hash of each different word; the words of all texts as indices; where each text begins).

    The order of the words of a text does not matter, so that of a set will do.
    """
    vocabulary: dict[str, int] = {}
    ids = [vocabulary.setdefault(word, len(vocabulary)) for text in words for word in text]
    digests = (hashlib.blake2b(word.encode(), digest_size=8).digest() for word in vocabulary)
    hashes = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    lengths = np.array([len(text) for text in words], np.int64)
    return hashes, np.array(ids, np.int64), np.cumsum(lengths) - lengths


def _mixed(values: np.ndarray) -> np.ndarray:
    """64-bit values mixed so that each bit depends on all (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
