"""Time complexity of functions of text, measured."""

import time
from collections.abc import Callable
from typing import NamedTuple

_FIRST = 2**12  # characters
_FACTOR = 4  # ratio of successive lengths
_ALLOWED = 2.5  # times the factor; for a quadratic function it is 4 times
_NOISE = 0.05  # shorter times, in seconds, prove nothing


class Grows(NamedTuple):
    """Measurement of the longest text that was tried.

    Attributes:
        is_linear: False if the time grew much faster than the length; longer texts are skipped.
        length: in characters.
        seconds: CPU time.
        words: all lengths and times.
    """

    is_linear: bool
    length: int
    seconds: float
    words: str


def how_it_grows(
    make: Callable[[int], str], function: Callable[[str], object], longest: int
) -> Grows:
    """Times a function on texts of increasing length, up to `longest` characters."""
    seconds, words, is_linear = 0.0, [], True
    length = min(_FIRST, longest)
    while True:
        text = make(length)
        before, seconds = seconds, _seconds(function, text)
        words.append(f"{length}: {seconds:.3g} s")
        if seconds > _NOISE and words[1:] and seconds > _ALLOWED * _FACTOR * before:
            seconds = min(seconds, _seconds(function, text))  # the machine may have been busy
            is_linear = seconds <= max(_NOISE, _ALLOWED * _FACTOR * before)
        if not is_linear or length * _FACTOR > longest:
            return Grows(is_linear, length, seconds, ", ".join(words))
        length *= _FACTOR


def _seconds(function: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    function(text)
    return time.process_time() - start
