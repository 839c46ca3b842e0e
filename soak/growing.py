"""How the time of a function grows with the length of its text."""

import time
from collections.abc import Callable
from typing import NamedTuple

_FIRST = 2**12  # characters
_FACTOR = 4  # from one length to the next
_ALLOWED = 2.5  # times the factor: a quadratic function takes 4 times the factor
_NOISE = 0.05  # seconds under which nothing is concluded


class Grows(NamedTuple):
    """The longest text that was tried.

    Attributes:
        is_linear: False where time grew much faster than the text; nothing longer was tried then.
        length: of that text, in characters.
        seconds: of the processor, for that text.
        words: all lengths with their seconds.
    """

    is_linear: bool
    length: int
    seconds: float
    words: str


def how_it_grows(
    make: Callable[[int], str], function: Callable[[str], object], longest: int
) -> Grows:
    """Times a function on texts of four times the length each, up to `longest` characters."""
    seconds, words, is_linear = 0.0, [], True
    length = min(_FIRST, longest)
    while True:
        text = make(length)
        before, seconds = seconds, _seconds(function, text)
        words.append(f"{length}: {seconds:.3g} s")
        if seconds > _NOISE and words[1:] and seconds > _ALLOWED * _FACTOR * before:
            seconds = min(seconds, _seconds(function, text))  # it may have been another's fault
            is_linear = seconds <= max(_NOISE, _ALLOWED * _FACTOR * before)
        if not is_linear or length * _FACTOR > longest:
            return Grows(is_linear, length, seconds, ", ".join(words))
        length *= _FACTOR


def _seconds(function: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    function(text)
    return time.process_time() - start
