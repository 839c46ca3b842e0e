"""Search trees for a page: which are shown, with the pairs that were chosen from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stair_jax import storage
from stair_jax.monitoring import SAMPLES_FILE
from stair_jax.record_log import RecordLog
from stair_jax.reports.choosing import in_hash_order, in_turn
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.search.tree_records import TreeRecord

TREES_FILE = "trees.jsonl.gz"
PAIRS_FILE = "dpo.jsonl"
TREES_RULE = (
    "Trees are taken in turn from those of which preference pairs were chosen and those of which "
    "none was, of each search and each kind of prompt; within these by the SHA-256 of their ids."
)

Pair = tuple[int, int]  # nodes: the chosen one, the rejected one


@dataclass(frozen=True)
class ShownTree:
    """A tree of a page.

    Attributes:
      search: its stage, with the run.
      record: of the tree.
      pairs: that were chosen from it.
      said: what the judge replied to one of its answers, by name of the question, where a sample
        was kept.
    """

    search: str
    record: TreeRecord
    pairs: tuple[Pair, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChosenTrees:
    """The trees of a page, and how many there are.

    Attributes:
      shown: of the page.
      total: of all searches.
      withheld: of these, trees of prompts that are not known to be harmless.
    """

    shown: tuple[ShownTree, ...]
    total: int
    withheld: int


def choose_trees(runs: Sequence[RunRecords], wanted: int, harmless: bool) -> ChosenTrees:
    """So many trees of the searches of some runs, by `TREES_RULE`.

    The trees are read one by one, twice: first their ids, then the chosen ones.

    Args:
      runs: that may have searches.
      wanted: trees at most.
      harmless: whether only trees of prompts for helpfulness are shown.

    Raises:
      UserError: a file is damaged.
    """
    strata: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    total = withheld = 0
    pairs = {_name(run, stage): _pairs(run, stage) for run, stage in _searches(runs)}
    for run, stage in _searches(runs) if wanted else ():
        name = _name(run, stage)
        for record in RecordLog(stage.folder / TREES_FILE):
            total += 1
            if harmless and record.get("kind") != "helpfulness":
                withheld += 1
                continue
            tree = str(record.get("id"))
            stratum = (name, str(record.get("kind")), tree not in pairs[name])
            strata.setdefault(stratum, []).append((name, tree))
    chosen = _chosen(strata, wanted)
    found = [tree for run, stage in _searches(runs) for tree in _read(run, stage, chosen, pairs)]
    return ChosenTrees(tuple(found), total, withheld)


def _searches(runs: Sequence[RunRecords]) -> list[tuple[RunRecords, FinishedStage]]:
    return [(run, stage) for run in runs for stage in run.of_kind("search")]


def _name(run: RunRecords, stage: FinishedStage) -> str:
    return f"{run.name}/{stage.name}"


def _chosen(
    strata: Mapping[tuple[str, str, bool], Sequence[tuple[str, str]]], wanted: int
) -> set[tuple[str, str]]:
    """So many trees, one of each stratum at a time, those with pairs first."""
    order = sorted(strata, key=lambda stratum: (stratum[2], stratum[:2]))
    return set(in_turn([in_hash_order(strata[one], lambda tree: tree) for one in order])[:wanted])


def _read(
    run: RunRecords,
    stage: FinishedStage,
    chosen: set[tuple[str, str]],
    pairs: Mapping[str, Mapping[str, Sequence[Pair]]],
) -> list[ShownTree]:
    """The chosen trees of a search, in the order in which they were finished."""
    name = _name(run, stage)
    if not any(search == name for search, _ in chosen):
        return []
    said = judge_words(stage)
    found = []
    for number, row in enumerate(RecordLog(stage.folder / TREES_FILE), start=1):
        tree = str(row.get("id"))
        if (name, tree) in chosen:
            record = TreeRecord.from_dict(row, f"{stage.folder / TREES_FILE}, record {number}")
            own = tuple(pairs[name].get(tree, ()))
            found.append(ShownTree(name, record, own, said.get(tree, {})))
    return found


def _pairs(run: RunRecords, search: FinishedStage) -> dict[str, list[Pair]]:
    """By tree, the siblings that the stages of preferences over a search chose from it."""
    found: dict[str, list[Pair]] = {}
    for stage in run.of_kind("preferences"):
        if stage.settings.get("trees") != search.name:
            continue
        for row in storage.read_jsonl(stage.folder / PAIRS_FILE):
            if (place := pair_place(str(row.get("id")))) is not None:
                tree, pair = place
                found.setdefault(tree, []).append(pair)
    return found


def pair_place(id: str) -> tuple[str, Pair] | None:
    """The tree and its nodes that the id of a pair names; None: it names none."""
    tree, *nodes = id.rsplit(":", 2)
    if len(nodes) != 2 or not all(node.isdecimal() for node in nodes):
        return None
    return tree, (int(nodes[0]), int(nodes[1]))


def judge_words(search: FinishedStage) -> dict[str, dict[str, str]]:
    """By tree, the replies of the judge that the samples of a search kept."""
    path = search.folder / SAMPLES_FILE
    rows = storage.read_jsonl(path) if path.is_file() else []
    return {
        str(row.get("id")): {
            name: str(text) for name, text in row.items() if name.endswith((" reply", " score"))
        }
        for row in rows
        if row.get("sample") == "judgement"
    }
