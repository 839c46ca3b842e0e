"""Figures of a plan, each with what it rests on."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Basis(enum.IntEnum):
    """What a figure rests on, the surest first."""

    COUNTED = 0  # follows from the config
    MEASURED = 1  # on hardware of this kind
    SCALED = 2  # measured on other hardware or another model, scaled by peaks and sizes
    ASSUMED = 3

    @property
    def mark(self) -> str:
        """Behind a printed figure."""
        return ("", "", "~", "?")[self]


@dataclass(frozen=True)
class Figure:
    """A number and the least sure of what went into it.

    Attributes:
      value: in the unit that its place says.
      basis: see `Basis`.
    """

    value: float
    basis: Basis = Basis.COUNTED

    def __add__(self, other: "Figure") -> "Figure":
        return Figure(self.value + other.value, max(self.basis, other.basis))

    def __mul__(self, other: "Figure | float") -> "Figure":
        if isinstance(other, Figure):
            return Figure(self.value * other.value, max(self.basis, other.basis))
        return Figure(self.value * other, self.basis)

    def __truediv__(self, other: "Figure") -> "Figure":
        return Figure(self.value / other.value, max(self.basis, other.basis))

    @property
    def text(self) -> str:
        """A whole number, with the mark of its basis."""
        return f"{self.value:,.0f}{self.basis.mark}"


NOTHING = Figure(0.0)


def total_of(figures: Iterable[Figure]) -> Figure:
    """Their sum."""
    return sum(figures, NOTHING)


def largest(*figures: Figure) -> Figure:
    """The one with the largest value."""
    return max(figures, key=lambda figure: figure.value)
