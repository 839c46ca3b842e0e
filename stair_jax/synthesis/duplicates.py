"""Near-duplicates among the answers to one prompt."""

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_SIZE = 3  # words of a shingle

Shingles = frozenset[tuple[str, ...]]


def shingles(text: str) -> Shingles:
    """The word triples of a text without case and punctuation; of fewer words all of them."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if len(words) < _SIZE:
        return frozenset([tuple(words)])
    return frozenset(zip(*(words[start:] for start in range(_SIZE)), strict=False))


def similarity(some: Shingles, others: Shingles) -> float:
    """Jaccard index: what two sets share, of what is in either (Broder 1997)."""
    return len(some & others) / len(some | others)


def near_duplicates(texts: Sequence[str], limit: float) -> list[bool]:
    """Whether each text is like an earlier one that is none itself.

    Args:
      texts: in order; the first one is none.
      limit: least Jaccard index of texts that are alike.
    """
    kept: list[Shingles] = []
    found = []
    for text in texts:
        own = shingles(text)
        found.append(any(similarity(own, other) >= limit for other in kept))
        if not found[-1]:
            kept.append(own)
    return found
