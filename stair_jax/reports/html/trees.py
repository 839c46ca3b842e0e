"""The trees of a run: a line for each, and one tree with its nodes, by its place in the file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_jax.record_log import RecordLog
from stair_jax.reports.choosing import in_hash_order, in_turn
from stair_jax.reports.html import schema_trees as schema
from stair_jax.reports.html.parts import Part
from stair_jax.reports.html.texts import chat_before
from stair_jax.reports.html.tree_index import COLUMNS, TreeIndex, tree_index
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.reports.trees import TREES_FILE, judge_words
from stair_jax.search.tree_records import Node, TreeRecord

TreePairs = Mapping[str, Sequence[list[int]]]  # by tree, [better node, worse node]


@dataclass(frozen=True)
class SearchTrees:
    """The trees of a search.

    Attributes:
      stage: the search.
      index: of its file.
      pairs: for DPO that were chosen from them.
      said: words of the judge by tree.
    """

    stage: FinishedStage
    index: TreeIndex
    pairs: TreePairs
    said: Mapping[str, Mapping[str, str]]

    def __len__(self) -> int:
        """Number of trees."""
        return len(self.index)

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Those of `TreeList` that each tree has by itself."""
        pairs = [len(self.pairs.get(tree, ())) for tree in self.index.columns["id"]]
        return self.index.columns | {"pairs": pairs}

    def read(self, row: int) -> schema.Tree:
        """A tree of the file; no other is read.

        Raises:
          UserError: the file was changed meanwhile.
        """
        path = self.stage.folder / TREES_FILE
        found = RecordLog(path).at(*self.index.place(row))
        return _tree(self, TreeRecord.from_dict(found, f"{path}, a record"))


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
        SearchTrees(stage, tree_index(stage), (pairs or {}).get(stage.name, {}), judge_words(stage))
        for stage in with_trees(run)
    ]


def with_trees(run: RunRecords) -> list[FinishedStage]:
    """The finished stages that have trees."""
    return [stage for stage in run.stages if (stage.folder / TREES_FILE).is_file()]


def trees_part(searches: Sequence[SearchTrees]) -> Part:
    """The list of all trees of a run."""
    columns: dict[str, Any] = {
        "stages": [search.stage.name for search in searches],
        "stage": [number for number, search in enumerate(searches) for _ in range(len(search))],
    }
    own = [search.columns for search in searches]
    for name in (*COLUMNS, "pairs"):
        columns[name] = [value for each in own for value in each[name]]
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
    return in_turn(strata[key] for key in sorted(strata))


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
