"""Which of a few labels or ratings an answer gives, or that it gives none."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from stair_jax.search.judging.sources.checkable_answers import announced

T = TypeVar("T", bound=Hashable)

_FIRST_WORD = re.compile(r"[\s*_\"'(\[#]*([^\W\d_]+)(?![^\W\d_]|\s*/|\s+or\b)")
_NUMBER = re.compile(r"(?<![\w.,])[-\u2212\u2013]?\d+(?:\.\d+)?(?![\w%]|[.,]\d)")


def label_said(answer: str, labels: Sequence[str]) -> str | None:
    """The label that an answer gives.

    It is the first word of the answer, where that is a label, and not of a list such as "yes or
    no". Else the announced result ("the answer is ..."), the first line, the last line and the
    whole answer are looked at in this order, and the first of them that holds exactly one of the
    labels, as whole words in any case, decides.

    Args:
      answer: text of the output block.
      labels: single words or phrases, such as ("yes", "no").

    Returns:
      one of the labels; None: the answer gives none, or several.
    """
    known = {label.casefold(): label for label in labels}
    first = _FIRST_WORD.match(answer)
    if first and first[1].casefold() in known:
        return known[first[1].casefold()]
    longest_first = sorted(known, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    return _only_one(answer, lambda part: {known[name] for name in pattern.findall(part)})


def rating_said(answer: str, scale: Mapping[float, str]) -> float | None:
    """The rating that an answer gives, on a scale that was offered.

    The announced result, the first line, the last line and the whole answer are looked at in this
    order. The first of them that holds exactly one number of the scale decides; where none does,
    the first that holds exactly one of the names of the ratings. Numbers that are not on the scale
    are no ratings, whatever lies between.

    Args:
      answer: text of the output block.
      scale: name of each rating, such as {4: "very sensitive", 3: "somewhat sensitive"}.

    Returns:
      one of the ratings; None: the answer gives none, or several.
    """

    def numbers(part: str) -> set[float]:
        found = (re.sub("[\u2212\u2013]", "-", text) for text in _NUMBER.findall(part))
        return {value for value in map(float, found) if value in scale}

    rating = _only_one(answer, numbers)
    if rating is not None:
        return rating
    names = {name.casefold(): value for value, name in scale.items()}
    label = label_said(answer, list(names))
    return None if label is None else names[label]


def _only_one(answer: str, find: Callable[[str], set[T]]) -> T | None:
    """The first part of an answer in which exactly one thing is found decides."""
    for part in _parts(answer):
        found = find(part.casefold())
        if len(found) == 1:
            return found.pop()
    return None


def _parts(answer: str) -> Iterator[str]:
    if result := announced(answer):
        yield result
    lines = [line for line in answer.splitlines() if line.strip()]
    if lines:
        yield lines[0]
        yield lines[-1]
    yield answer
