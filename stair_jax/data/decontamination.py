"""Which prompts say, in whatever words around them, what a held-out prompt says.

Three tests, from the narrowest to the widest:

- equal: the normalised texts are the same;
- jaccard: the content words that both have are a large share of those that either has: a prompt
  with a word exchanged, or in another order;
- containment: nearly all content words of the held-out prompt are in the other one: a copy with
  something wrapped around it.

Overlaps of n-grams, usual for documents, say little about prompts of ten words.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+")
# Words that prompts share whatever they are about: function words, and verbs of asking.
_COMMON = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "some", "any", "each", "all", "no"),
        *("i", "me", "my", "we", "us", "our", "you", "your", "he", "him", "his", "she", "her"),
        *("it", "its", "they", "them", "their", "who", "whom", "whose", "which", "what", "when"),
        *("where", "why", "how", "and", "or", "but", "nor", "so", "if", "then", "than", "as"),
        *("of", "to", "in", "on", "at", "by", "for", "from", "with", "without", "into", "onto"),
        *("about", "over", "under", "between", "through", "up", "down", "out", "off", "be", "am"),
        *("is", "are", "was", "were", "been", "being", "do", "does", "did", "done", "doing"),
        *("have", "has", "had", "can", "could", "may", "might", "must", "shall", "should"),
        *("will", "would", "not", "there", "here", "also", "very", "just", "s", "t", "m", "re"),
        *("please", "tell", "give", "show", "write", "create", "make", "explain", "describe"),
        *("provide", "generate", "list", "get", "use", "using", "want", "need", "help", "let"),
        *("step", "steps", "guide", "instructions", "way", "ways", "one", "someone", "something"),
    )
)


def normalised(text: str) -> str:
    """The words of a text in lower case, with one space between them; punctuation is left out."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def content_words(plain: str) -> frozenset[str]:
    """The different words of a normalised text without those that most prompts share."""
    return frozenset(plain.split()) - _COMMON


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Words in both as a share of the words in either; 0 where neither has one."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 0.0


def containment(held_out: frozenset[str], words: frozenset[str]) -> float:
    """Share of the held-out words that are among `words`; 0 where there are none."""
    return len(held_out & words) / len(held_out) if held_out else 0.0


@dataclass(frozen=True)
class Thresholds:
    """From where on two prompts count as the same.

    Attributes:
      jaccard: least similarity.
      containment: least share of the held-out words.
      min_words: content words that both have at least for `jaccard`: of fewer, one word in common
        says too much.
      min_contained: content words that a held-out prompt has at least for `containment`.
    """

    jaccard: float = 0.7
    containment: float = 0.9
    min_words: int = 3
    min_contained: int = 6


class Match(NamedTuple):
    """A held-out prompt that a text repeats.

    Attributes:
      name: of its set.
      test: "equal", "jaccard" or "containment".
      value: of the similarity, from the threshold to 1.
      text: of the held-out prompt.
    """

    name: str
    test: str
    value: float
    text: str


class HeldOutTexts:
    """Prompts that must stay unseen, indexed so that a text is compared with few of them.

    A text that passes a threshold has at least the share `low` = min(jaccard, containment) of the
    n words of the held-out prompt, since Jaccard's union is no smaller than n. So it has one of any
    n - ceil(low n) + 1 of them: each prompt is listed under so many of its rarest words alone
    (prefix filtering, Chaudhuri et al., ICDE 2006). No match is lost by this.
    """

    def __init__(
        self, texts: Iterable[tuple[str, str]], thresholds: Thresholds | None = None
    ) -> None:
        """Indexes (name of the set, text); of equal texts, the first name counts."""
        self._thresholds = thresholds or Thresholds()
        self._equal: dict[str, tuple[str, str]] = {}
        for name, text in texts:
            if plain := normalised(text):
                self._equal.setdefault(plain, (name, text))
        self._words = [content_words(plain) for plain in self._equal]
        self._texts = list(self._equal.values())
        self._by_word = self._index()

    def __len__(self) -> int:
        """Different texts."""
        return len(self._texts)

    def match(self, text: str, equal_only: bool = False) -> Match | None:
        """The held-out prompt that a text repeats, the most similar one; None: there is none.

        Args:
          text: to be looked up.
          equal_only: compare normalised texts alone.
        """
        plain = normalised(text)
        if plain in self._equal:
            name, held_out = self._equal[plain]
            return Match(name, "equal", 1.0, held_out)
        found = [] if equal_only else list(self._similar(content_words(plain)))
        return min(found, key=lambda match: (-match.value, *match[:2], match.text), default=None)

    def _index(self) -> dict[str, list[int]]:
        counts = Counter(word for words in self._words for word in words)
        low = min(self._thresholds.jaccard, self._thresholds.containment)
        index: dict[str, list[int]] = {}
        for number, words in enumerate(self._words):
            rarest = sorted(words, key=lambda word: (counts[word], word))
            kept = len(words) - math.ceil(low * len(words) - 1e-9) + 1
            for word in rarest[:kept] if words else ():
                index.setdefault(word, []).append(number)
        return index

    def _similar(self, words: frozenset[str]) -> Iterator[Match]:
        limits = self._thresholds
        numbers = {number for word in words for number in self._by_word.get(word, ())}
        for number in numbers:
            held_out = self._words[number]
            # No similarity is larger than what these lengths allow: most texts end here.
            least, most = sorted((len(words), len(held_out)))
            is_near = least >= limits.min_words and least >= limits.jaccard * most - 1e-9
            may_hold = len(held_out) >= limits.min_contained
            may_hold = may_hold and len(words) >= limits.containment * len(held_out) - 1e-9
            if not is_near and not may_hold:
                continue
            name, text = self._texts[number]
            if is_near and (value := jaccard(words, held_out)) >= limits.jaccard:
                yield Match(name, "jaccard", value, text)
            elif may_hold and (value := containment(held_out, words)) >= limits.containment:
                yield Match(name, "containment", value, text)
