"""Statistics of the searches of a run, and of the pairs that were chosen from them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax import storage
from stair_jax.reports.html import schema_trees as schema
from stair_jax.reports.html.trees import SearchTrees
from stair_jax.reports.records import FinishedStage, RunRecords

_BINS = 24
_MOST_REPLIES = 20
_EVENTS = "counts/"


def search_statistics(run: RunRecords, searches: Sequence[SearchTrees]) -> list[schema.Search]:
    """Of each search what its trees come to.

    Raises:
      UserError: a file of a stage is damaged.
    """
    return [_statistics(run, search) for search in searches]


def _statistics(run: RunRecords, search: SearchTrees) -> schema.Search:
    folder = search.stage.folder
    probe = _read(folder / "probe.json", {})
    skipped = _read(folder / "skipped.json", [])
    return {
        "stage": search.stage.name,
        "trees": len(search),
        "skipped": dict(
            Counter(str(one.get("reason", "")) for one in skipped if isinstance(one, Mapping))
        ),
        "kinds": dict(Counter(search.columns["kind"])),
        "counts": {
            name.removeprefix(_EVENTS): number
            for name, number in search.index.totals.items()
            if name.startswith(_EVENTS)
        },
        "iterations": search.index.totals.get("iterations", 0),
        "generated_tokens": search.index.totals.get("generated_tokens", 0),
        "prefilled_tokens": search.index.totals.get("prefilled_tokens", 0),
        "probe": _probes(probe),
        "replies": [str(reply) for reply in probe.get("replies", ())[:_MOST_REPLIES]],
        "histograms": list(_histograms(search.columns)),
        "pairs": [
            counts
            for stage in run.of_kind("preferences")
            if stage.settings.get("trees") == search.stage.name
            for counts in _pair_counts(stage)
        ],
    }


def _read(path: Path, otherwise: Any) -> Any:
    """The JSON of a file of the type of `otherwise`, which stands for one that is not there."""
    found = storage.read_json(path) if path.is_file() else otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def _probes(probe: Mapping[str, Any]) -> list[schema.Probe]:
    return [
        {
            "what": str(what),
            "value": one.get("value"),
            "low": one.get("low"),
            "high": one.get("high"),
        }
        for what, one in probe.get("auc", {}).items()
        if isinstance(one, Mapping)
    ]


def _histograms(columns: Mapping[str, Sequence[Any]]) -> Iterator[schema.Histogram]:
    spread = [
        None if low is None else high - low
        for low, high in zip(columns["low"], columns["high"], strict=True)
    ]
    numbers = {
        "value of the root": columns["value"],
        "spread of the rewards": spread,
        "nodes": columns["nodes"],
        "depth": columns["depth"],
        "pairs": columns["pairs"],
    }
    for name, values in numbers.items():
        known = [value for value in values if value is not None]
        if known:
            yield _histogram(name, values, columns["kind"], _edges(known))


def _edges(values: Sequence[float]) -> list[float]:
    """Bins over the values; whole numbers are in the middle of theirs where these are few."""
    low, high = min(values), max(values)
    is_whole = all(isinstance(value, int) for value in values)
    if is_whole and high - low < _BINS:
        return [edge - 0.5 for edge in range(int(low), int(high) + 2)]
    if low == high:
        return [low - 0.5, high + 0.5]
    edges: list[float] = np.linspace(low, high, _BINS + 1).tolist()
    return edges


def _histogram(
    name: str, values: Sequence[float | None], kinds: Sequence[str], edges: Sequence[float]
) -> schema.Histogram:
    counts = {}
    for kind in dict.fromkeys(kinds):
        own = [
            value
            for value, its in zip(values, kinds, strict=True)
            if its == kind and value is not None
        ]
        counts[kind] = np.histogram(own, edges)[0].tolist()
    return {"name": name, "edges": list(edges), "counts": counts}


def _pair_counts(stage: FinishedStage) -> Iterator[schema.PairCounts]:
    regret = {
        str(kind): float(one["mean"])
        for kind, one in _read(stage.folder / "regret.json", {}).items()
        if isinstance(one, Mapping) and isinstance(one.get("mean"), int | float)
    }
    for file, counts in _read(stage.folder / "counts.json", {}).items():
        if isinstance(counts, Mapping):
            whole = {str(name): n for name, n in counts.items() if isinstance(n, int)}
            yield {"stage": stage.name, "file": str(file), "counts": whole, "regret": regret}
