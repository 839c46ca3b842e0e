"""Which cases a page shows: by a rule, evenly over what changed and over sets."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stair_jax.reports.answers import GradedAnswer, Place
from stair_jax.settings import Settings, setting

T = TypeVar("T")
_NOTHING: Any = object()
CHANGES = ("gained", "lost", "unchanged", "not graded")
RULE = (
    "A case counts as gained, lost or unchanged by what the last model got against the first. "
    "Cases are taken in turn from the gained, the lost and the unchanged ones; among these from "
    "the set that has given fewest so far, in the order of the table; within a set by the SHA-256 "
    "of its name, the attack and the case's id. Cases that are not graded come last."
)


@dataclass(frozen=True)
class CasesSettings(Settings):
    """Of `stair-jax cases`.

    Attributes:
      number: of cases on the page.
      trees: of search trees on the page.
      nodes: of a tree at most.
      models: rows of the tables, as they are named there, in this order: the last is compared with
        the first; empty: all.
      benchmarks: names of the sets, BENCHMARK or BENCHMARK:ATTACK; empty: all.
      length: characters of a text at most, of which start and end stay.
      files: folder of the benchmarks' files, in place of the one that the runs name.
    """

    number: int = setting(20, least=0)
    trees: int = setting(4, least=0)
    nodes: int = setting(40, least=1)
    models: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    length: int = setting(6000, least=40)
    files: str = ""


@dataclass(frozen=True)
class ShownCase:
    """A case with the answers of all columns.

    Attributes:
      place: what was asked.
      prompt: with the turns before it, as (role, text); empty: it is not known any more.
      group: subset of the set that it belongs to.
      reference: the right answer; "": there is none.
      is_harmless: whether it asks for nothing harmful.
      replies: by column; a column without an answer is not there.
      change: one of `CHANGES`, of the last column against the first.
    """

    place: Place
    prompt: tuple[tuple[str, str], ...]
    group: str
    reference: str
    is_harmless: bool
    replies: Mapping[str, GradedAnswer]
    change: str

    @property
    def set_name(self) -> str:
        """Benchmark and attack as the user names them."""
        return set_name(self.place)


def set_name(place: Place) -> str:
    """Benchmark and attack as the user names them."""
    return place.benchmark + ("" if place.attack == "none" else f":{place.attack}")


def change_of(first: GradedAnswer | None, last: GradedAnswer | None) -> str:
    """What became of a case, one of `CHANGES`."""
    before = None if first is None else first.goodness
    after = None if last is None else last.goodness
    if before is None or after is None:
        return "not graded"
    if after == before:
        return "unchanged"
    return "gained" if after > before else "lost"


def choose(cases: Sequence[ShownCase], number: int) -> list[ShownCase]:
    """So many of the cases by `RULE`, in the order of `CHANGES`."""
    left: dict[str, dict[str, list[ShownCase]]] = {change: {} for change in CHANGES}
    for case in in_hash_order(cases, lambda case: case.place):
        left[case.change].setdefault(case.set_name, []).append(case)
    order = list(dict.fromkeys(case.set_name for case in cases))
    chosen: dict[str, list[ShownCase]] = {change: [] for change in CHANGES}
    given: Counter[str] = Counter()
    graded = [change for change in CHANGES if change != "not graded"]
    while sum(given.values()) < number and any(map(_any_left, left.values())):
        turn = [change for change in graded if _any_left(left[change])] or ["not graded"]
        for change in turn[: number - sum(given.values())]:
            sets = [name for name in order if left[change].get(name)]
            name = min(sets, key=lambda name: given[name])
            chosen[change].append(left[change][name].pop(0))
            given[name] += 1
    return [case for change in CHANGES for case in chosen[change]]


def in_hash_order(items: Sequence[T], parts: Callable[[T], Sequence[str]]) -> list[T]:
    """Items by the SHA-256 of what names them, so that no order of the data decides."""

    def key(item: T) -> str:
        return hashlib.sha256("\n".join(parts(item)).encode(errors="replace")).hexdigest()

    return sorted(items, key=key)


def in_turn(strata: Iterable[Sequence[T]]) -> list[T]:
    """All items, one of each stratum at a time, in the order of these."""
    rounds = itertools.zip_longest(*strata, fillvalue=_NOTHING)
    return [item for each in rounds for item in each if item is not _NOTHING]


def _any_left(sets: Mapping[str, Sequence[ShownCase]]) -> bool:
    return any(sets.values())
