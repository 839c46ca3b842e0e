"""The trees of a run: a line for each, and one tree with its nodes, by its place in the file."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_jax.record_log import RecordLog
from stair_jax.reports.choosing import in_hash_order
from stair_jax.reports.html import schema_trees as schema
from stair_jax.reports.html.parts import Part, in_turn
from stair_jax.reports.html.texts import brief, chat_before
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.reports.trees import TREES_FILE, judge_words
from stair_jax.search.tree_records import Node, TreeRecord

TreePairs = Mapping[str, Sequence[list[int]]]  # by tree, [better node, worse node]
_COLUMNS = tuple(
    name
    for name in schema.TreeList.__annotations__
    if name not in ("stages", "stage", "block", "slot")
)


@dataclass
class SearchTrees:
    """The trees of a search.

    Attributes:
      stage: the search.
      pairs: for DPO that were chosen from them.
      columns: of `TreeList`.
      totals: events and tokens, summed over the trees.
      said: words of the judge by tree.
    """

    stage: FinishedStage
    pairs: TreePairs
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    totals: dict[str, int] = field(default_factory=dict)
    said: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _places: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        """Number of trees."""
        return len(self.columns["id"])

    @property
    def path(self) -> Path:
        """The file of the trees."""
        return self.stage.folder / TREES_FILE

    def add(self, record: TreeRecord, start: int, end: int) -> None:
        """Adds the line of a tree that stands between two places of the file."""
        for name, value in _line(record, len(self.pairs.get(record.id, ()))).items():
            self.columns[name].append(value)
        totals = {
            "iterations": record.iterations,
            "generated_tokens": record.generated_tokens,
            "prefilled_tokens": record.prefilled_tokens,
        } | {f"counts/{name}": count for name, count in record.counts.items()}
        for name, number in totals.items():
            self.totals[name] = self.totals.get(name, 0) + number
        self._places.extend((start, end))

    def read(self, row: int) -> schema.Tree:
        """A tree of the file; no other is read.

        Raises:
          UserError: the file was changed meanwhile.
        """
        start, end = self._places[2 * row : 2 * row + 2]
        record = TreeRecord.from_dict(RecordLog(self.path).at(start, end), f"{self.path}, a record")
        return _tree(self, record)


def read_searches(
    run: RunRecords, pairs: Mapping[str, TreePairs] | None = None
) -> list[SearchTrees]:
    """The trees of all finished searches; each file is read once, one tree in memory at a time.

    Args:
      run: that has them.
      pairs: by search, those for DPO.

    Raises:
      UserError: a file is damaged, or of a newer schema.
    """
    return [
        _search(stage, (pairs or {}).get(stage.name, {}))
        for stage in run.stages
        if (stage.folder / TREES_FILE).is_file()
    ]


def trees_part(searches: Sequence[SearchTrees]) -> Part:
    """The list of all trees of a run."""
    columns: dict[str, Any] = {
        "stages": [search.stage.name for search in searches],
        "stage": [number for number, search in enumerate(searches) for _ in range(len(search))],
    }
    for name in _COLUMNS:
        columns[name] = [value for search in searches for value in search.columns[name]]
    places = [(search, row) for search in searches for row in range(len(search))]

    def read(row: int) -> schema.Tree:
        search, place = places[row]
        return search.read(place)

    return Part("trees", [columns], [len(places)], read, _order(columns))


def _order(columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """In turn from trees with pairs and without, of each search and kind of prompt."""
    strata: dict[tuple[bool, int, str], list[int]] = {}
    rows = in_hash_order(range(len(columns["id"])), lambda row: [columns["id"][row]])
    for row in rows:
        key = (not columns["pairs"][row], columns["stage"][row], columns["kind"][row])
        strata.setdefault(key, []).append(row)
    return in_turn({key: strata[key] for key in sorted(strata)})


def _search(stage: FinishedStage, pairs: TreePairs) -> SearchTrees:
    search = SearchTrees(stage, pairs, said=judge_words(stage))
    start = 0
    for number, (row, end) in enumerate(RecordLog(search.path).members(), start=1):
        search.add(TreeRecord.from_dict(row, f"{search.path}, record {number}"), start, end)
        start = end
    return search


def _line(record: TreeRecord, pairs: int) -> dict[str, Any]:
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
        "pairs": pairs,
        "missing": root.missing,
        "unreadable": record.counts.get("unreadable", 0),
        "malformed": record.counts.get("malformed", 0),
        "tokens": record.generated_tokens,
        "seconds": record.seconds,
    }


def _tree(search: SearchTrees, record: TreeRecord) -> schema.Tree:
    return {
        "search": search.stage.name,
        "id": record.id,
        "kind": record.kind,
        "source": record.source,
        "turns": chat_before(record.system, record.history),
        "prompt": record.prompt,
        "start": "".join(record.start or ()),
        "iterations": record.iterations,
        "counts": dict(record.counts),
        "tokens": record.generated_tokens,
        "seconds": record.seconds,
        "nodes": _nodes(record.nodes),
        "pairs": [
            list(pair) for pair in search.pairs.get(record.id, ()) if max(pair) < len(record.nodes)
        ],
        "said": [
            {"question": name, "text": text}
            for name, text in search.said.get(record.id, {}).items()
        ],
    }


def _nodes(nodes: Sequence[Node]) -> schema.Nodes:
    judged = [_judged(node) for node in nodes]
    return {
        "parent": [node.parent for node in nodes],
        "text": [node.text for node in nodes],
        "visits": [node.visits for node in nodes],
        "value": [node.value for node in nodes],
        "reward": [
            own.get("reward") if node.reward is None else node.reward
            for node, own in zip(nodes, judged, strict=True)
        ],
        "helpfulness": [own.get("helpfulness") for own in judged],
        "safety": [own.get("safety") for own in judged],
        "judge": [_judgements(node) for node in nodes],
        "terminal": [node.terminal for node in nodes],
        "prior": [node.prior for node in nodes],
        "missing": [node.missing for node in nodes],
    }


def _judged(node: Node) -> Mapping[str, Any]:
    """The first judgement of a node."""
    return node.judgements[0] if node.judgements else {}


def _judgements(node: Node) -> str | None:
    """All that was judged of a node, as text; None: nothing."""
    if not node.judgements:
        return None
    return "\n\n".join("\n".join(_judgement(entry)) for entry in node.judgements)


def _judgement(entry: Mapping[str, Any]) -> Iterator[str]:
    scores = [
        f"{name} {entry[name]:.4g}"
        for name in ("reward", "helpfulness", "safety")
        if isinstance(entry.get(name), int | float)
    ]
    malformed = ["malformed"] if entry.get("malformed") else []
    yield ", ".join([*malformed, *scores]) or "no reward"
    yield str(entry.get("answer", ""))
