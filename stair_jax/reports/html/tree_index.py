"""A line for each tree of a file with its place there; kept beside a large file once it is made."""

import gzip
import json
import zlib
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.reports.html.schema_trees import TreeList
from stair_jax.reports.html.texts import brief
from stair_jax.reports.records import FinishedStage
from stair_jax.reports.trees import TREES_FILE
from stair_jax.search.tree_records import TreeRecord
from stair_jax.storage import atomic_file, json_line

INDEX_FILE = ".trees_index.json.gz"
_SCHEMA = 1
_LARGE = 1 << 24  # bytes of a file whose index is kept
COLUMNS = tuple(
    name
    for name in TreeList.__annotations__
    if name not in ("stages", "stage", "pairs", "block", "slot")
)


@dataclass
class TreeIndex:
    """The trees of a file.

    Attributes:
      columns: of `TreeList`, but for what is not of the trees alone.
      totals: events and tokens, summed over the trees.
      places: of each tree its first byte in the file, and the one after its last.
    """

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    totals: dict[str, int] = field(default_factory=dict)
    places: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        """Number of trees."""
        return len(self.columns["id"])

    def place(self, row: int) -> tuple[int, int]:
        """Where a tree stands in the file."""
        return self.places[2 * row], self.places[2 * row + 1]

    def add(self, record: TreeRecord, start: int, end: int) -> None:
        """Adds a tree that stands between two places of the file."""
        for name, value in _line(record).items():
            self.columns[name].append(value)
        totals = {
            "iterations": record.iterations,
            "generated_tokens": record.generated_tokens,
            "prefilled_tokens": record.prefilled_tokens,
        } | {f"counts/{name}": count for name, count in record.counts.items()}
        for name, number in totals.items():
            self.totals[name] = self.totals.get(name, 0) + number
        self.places.extend((start, end))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"columns": self.columns, "totals": self.totals, "places": self.places.tolist()}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """Of what `to_dict` gives.

        Raises:
          ValueError: it is something else.
        """
        columns: dict[str, Sequence[Any]] = {name: row["columns"][name] for name in COLUMNS}
        found = cls(
            {name: list(values) for name, values in columns.items()},
            dict(row["totals"]),
            array("q", row["places"]),
        )
        sizes = {len(values) for values in found.columns.values()}
        if sizes != {len(found)} or len(found.places) != 2 * len(found):
            raise ValueError("the columns have several lengths")
        return found


def tree_index(stage: FinishedStage) -> TreeIndex:
    """The trees of a finished search; the file is read once, one tree in memory at a time.

    Raises:
      UserError: it is damaged, or of a newer schema.
    """
    path, kept = stage.folder / TREES_FILE, stage.folder / INDEX_FILE
    of = [_SCHEMA, stage.record.get("files", {}).get(TREES_FILE), path.stat().st_size]
    if (found := _kept(kept, of)) is not None:
        return found
    index = _read(path)
    if path.stat().st_size >= _LARGE:
        with suppress(UserError), atomic_file(kept) as file:  # of another user's, or on a full disk
            file.write(gzip.compress(json_line({"of": of} | index.to_dict()), mtime=0))
    return index


def _read(path: Path) -> TreeIndex:
    index, start = TreeIndex(), 0
    for number, (row, end) in enumerate(RecordLog(path).members(), start=1):
        index.add(TreeRecord.from_dict(row, f"{path}, record {number}"), start, end)
        start = end
    return index


def _kept(path: Path, of: Sequence[Any]) -> TreeIndex | None:
    """The index that was kept of just this file; None: there is none that can be used."""
    try:
        row = json.loads(gzip.decompress(path.read_bytes())) if path.is_file() else {}
        return TreeIndex.from_dict(row) if row.get("of") == of else None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError):
        return None


def _line(record: TreeRecord) -> dict[str, Any]:
    rewards, root = record.rewards(), record.nodes[0]
    return {
        "id": record.id,
        "kind": record.kind,
        "source": record.source,
        "prompt": brief(record.prompt),
        "nodes": len(record.nodes),
        "depth": max(node.depth for node in record.nodes),
        "visits": root.visits,
        "value": root.value,
        "low": min(rewards, default=None),
        "high": max(rewards, default=None),
        "missing": root.missing,
        "unreadable": record.counts.get("unreadable", 0),
        "malformed": record.counts.get("malformed", 0),
        "tokens": record.generated_tokens,
        "seconds": record.seconds,
    }
