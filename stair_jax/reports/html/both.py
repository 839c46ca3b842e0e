"""What two runs have in common: trees of the same prompts, the same cases."""

from collections.abc import Hashable, Iterable, Mapping, Sequence

from stair_jax.reports.html.parts import Columns, Part
from stair_jax.reports.html.schema import Both

Keys = Iterable[tuple[Hashable, str, list[int]]]  # what is the same, the stage, where it is


def both_block(trees: tuple[Part, Part], cases: tuple[Part, Part]) -> Both:
    """The rows of two runs that are about the same."""
    first, second = (_trees(part.lists[0]) for part in trees)
    one, other = (_cases(part.lists) for part in cases)
    return {"trees": _joined(first, second), "cases": _joined(one, other)}


def _trees(columns: Columns) -> Keys:
    for row, stage in enumerate(columns["stage"]):
        key = columns["id"][row], columns["prompt"][row]
        yield key, columns["stages"][stage], [row]


def _cases(lists: Sequence[Columns]) -> Keys:
    for number, columns in enumerate(lists):
        keys = zip(columns["benchmark"], columns["attack"], columns["case"], strict=True)
        for row, key in enumerate(keys):
            yield key, columns["stage"], [number, row]


def _joined(first: Keys, second: Keys) -> list[list[int]]:
    """Where both have the same; that of a stage of the same name, where there are several."""
    others: dict[Hashable, dict[str, list[int]]] = {}
    for key, stage, place in second:
        others.setdefault(key, {}).setdefault(stage, place)
    return [place + _chosen(others[key], stage) for key, stage, place in first if key in others]


def _chosen(places: Mapping[str, list[int]], stage: str) -> list[int]:
    return places[stage] if stage in places else next(iter(places.values()))
