"""What a settings field says of its values beside their type: ranges, choices, and their defaults.

Every number has a range, also where its field states none: a value out of it would overflow the
machine's numbers somewhere far from the line of the config that holds it.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()
# More tokens, rows or bytes than any run has, and products of two with what is counted in one unit
# stay far below the largest float; a sum of millions of them stays a 64-bit number.
LARGEST_WHOLE = 2**40
# Computed in float32 and bfloat16 (at most 3.4e38, normal from 1.2e-38): squares of the largest and
# quotients of a score by the smallest are finite.
LARGEST_REAL, SMALLEST_REAL = 1e12, 1e-30


@dataclass(frozen=True)
class Rule:
    """What is known of a field beside its type.

    Attributes:
      least: the value is at least this.
      above: the value is above this.
      most: the value is at most this.
      below: the value is below this.
      choices: the values that text (or each text of a tuple) may have; empty: any.
      cost: the field changes time and memory, and results by rounding only: it is no part of a
        stage's identity.
      absent: what a record means that was written before the field existed; with this value the
        field is no part of a stage's identity. `UNSET`: the default, which is a part of it.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: Collection[str] = ()
    cost: bool = False
    absent: Any = UNSET

    def describe(self) -> str:
        """The range in words, such as "at least 0 and below 1"; empty: none is stated."""
        return " and ".join(
            f"{word} {_plain(bound)}"
            for word, bound in (
                ("above", self.above),
                ("at least", self.least),
                ("below", self.below),
                ("at most", self.most),
            )
            if bound is not None
        )

    def holds(self, number: float) -> bool:
        """Whether a number is in the stated range."""
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def refusal(self, number: float) -> str:
        """What a number would have to be, such as "at least 0"; empty: it is in the range."""
        if not math.isfinite(number):
            return "a finite number"
        if not self.holds(number):
            return self.describe()
        whole = isinstance(number, int)
        largest = LARGEST_WHOLE if whole else LARGEST_REAL
        is_stated = self.most is not None or self.below is not None
        if (number > largest and not is_stated) or number < -largest:
            return f"at most {_plain(largest)} in size"
        if not whole and 0 < abs(number) < SMALLEST_REAL:
            return f"0 or at least {SMALLEST_REAL:g} in size"
        return ""


def _plain(bound: float) -> str:
    """A bound without the ".0" of a whole number, and short where it has many digits."""
    if isinstance(bound, int) or (bound.is_integer() and abs(bound) <= LARGEST_WHOLE):
        return str(int(bound))
    return f"{bound:g}"


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
