"""The preference pairs of a run: a line for each; the texts of one, by its place in the file."""

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from stair_jax.data.records import PathPair, PreferencePair, StepPair
from stair_jax.reports.html import schema_trees as schema
from stair_jax.reports.html.parts import Part, in_turn
from stair_jax.reports.html.texts import brief, chat_before
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.storage import parse_row, read_row, reading
from stair_jax.text.steps import REASONING_CLOSE

_FILES: Mapping[str, type[PreferencePair]] = {"dpo": StepPair, "prm": PathPair}
_STEP_END = re.compile(f"(?<={re.escape(REASONING_CLOSE)})")
_STEP = "step"
_MOST_LISTED = 100_000  # pairs of a file
_COLUMNS = tuple(
    name
    for name in schema.PairList.__annotations__
    if name not in ("files", "file", "tree", "block", "slot")
)


@dataclass
class PairFile:
    """A file of pairs.

    Attributes:
      stage: that made it.
      name: of the file, without its ending.
      search: name of the stage that holds their trees; "": they are not of trees.
      columns: of `PairList`.
      trees: of each pair the id of its tree; "": it is of none.
      total: pairs of the file, of which very many are not all listed.
    """

    stage: FinishedStage
    name: str
    search: str
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    trees: list[str] = field(default_factory=list)
    total: int = 0
    _places: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.trees)

    @property
    def path(self) -> Path:
        """The file."""
        return self.stage.folder / f"{self.name}.jsonl"

    @property
    def variant(self) -> str:
        """Of pairs for DPO: "step", or "trajectory" for whole answers."""
        return str(self.stage.settings.get("variant", _STEP))

    def add(self, pair: PreferencePair, start: int, end: int) -> None:
        """Adds the line of a pair that stands between two places of the file."""
        tree, chosen, rejected = _place(pair.id) if self.search else ("", None, None)
        line = _line(pair, self._form(pair, tree)) | {"chosen": chosen, "rejected": rejected}
        for name in _COLUMNS:
            self.columns[name].append(line[name])
        self.trees.append(tree)
        self._places.extend((start, end))

    def read(self, row: int) -> schema.Pair:
        """The texts of a pair; no other is read.

        Raises:
          UserError: the file was changed meanwhile.
        """
        start, end = self._places[2 * row : 2 * row + 2]
        found = read_row(self.path, start, end)
        return _texts(_FILES[self.name].from_dict(found, f"{self.path}, a row"))

    def _form(self, pair: PreferencePair, tree: str) -> str:
        if not tree:
            return "answer"
        if isinstance(pair, PathPair):
            return pair.form or _STEP
        return self.variant


def read_pairs(run: RunRecords) -> list[PairFile]:
    """The pairs of all finished stages, one in memory at a time; of very many, evenly some.

    Raises:
      UserError: a file is damaged, or of a newer schema.
    """
    return [
        _read(stage, name)
        for stage in run.stages
        for name in _FILES
        if (stage.folder / f"{name}.jsonl").is_file()
    ]


def not_listed(files: Sequence[PairFile]) -> list[str]:
    """What is to be said of files whose pairs are not all listed."""
    return [
        f"Of {file.stage.name}/{file.name} {len(file):,} of {file.total:,} pairs are listed, "
        "evenly spread."
        for file in files
        if len(file) < file.total
    ]


def pairs_of_trees(files: Sequence[PairFile]) -> dict[str, dict[str, list[list[int]]]]:
    """By search and tree, the nodes of the pairs for DPO, each once.

    Where some are of steps and others of whole answers, they are those of steps.
    """
    of_trees = [file for file in files if file.name == "dpo" and file.search]
    with_steps = {file.search for file in of_trees if file.variant == _STEP}
    found: dict[str, dict[str, list[list[int]]]] = {}
    for file in of_trees:
        if file.variant != _STEP and file.search in with_steps:
            continue
        nodes = zip(file.columns["chosen"], file.columns["rejected"], strict=True)
        for tree, pair in zip(file.trees, nodes, strict=True):
            own = found.setdefault(file.search, {}).setdefault(tree, [])
            if tree and list(pair) not in own:
                own.append(list(pair))
    return found


def pairs_part(files: Sequence[PairFile], trees: Mapping[tuple[str, str], int]) -> Part:
    """The list of all pairs of a run.

    Args:
      files: with the pairs.
      trees: rows of the run's `TreeList`, by search and id.
    """
    columns: dict[str, Any] = {
        "files": [f"{file.stage.name}/{file.name}" for file in files],
        "file": [number for number, file in enumerate(files) for _ in range(len(file))],
        "tree": [trees.get((file.search, tree)) for file in files for tree in file.trees],
    }
    for name in _COLUMNS:
        columns[name] = [value for file in files for value in file.columns[name]]
    places = [(file, row) for file in files for row in range(len(file))]
    strata: dict[int, list[int]] = {}
    for row, number in enumerate(columns["file"]):
        strata.setdefault(number, []).append(row)

    def read(row: int) -> schema.Pair:
        file, place = places[row]
        return file.read(place)

    return Part("pairs", [columns], [len(places)], read, in_turn(strata))


def _read(stage: FinishedStage, name: str) -> PairFile:
    file = PairFile(stage, name, str(stage.settings.get("trees") or ""))
    with reading(file.path), open(file.path, "rb") as lines:
        file.total = sum(1 for _ in lines)
        every = math.ceil(file.total / _MOST_LISTED)
        lines.seek(0)
        end = 0
        for number, line in enumerate(lines):
            start, end = end, end + len(line)
            if number % every == 0:
                where = f"{file.path}, line {number + 1}"
                row = parse_row(line.decode(), f"{where},")
                file.add(_FILES[name].from_dict(row, where), start, end)
    return file


def _place(pair: str) -> tuple[str, int | None, int | None]:
    """Tree and nodes that the id of a pair names; "": it names none."""
    tree, *nodes = pair.rsplit(":", 2)
    if len(nodes) != 2 or not all(node.isdecimal() for node in nodes):
        return "", None, None
    return tree, int(nodes[0]), int(nodes[1])


def _line(pair: PreferencePair, form: str) -> dict[str, Any]:
    return {
        "id": pair.id,
        "kind": pair.kind or "",
        "form": form,
        "prompt": brief(pair.prompt),
        "chosen_value": pair.chosen_value,
        "rejected_value": pair.rejected_value,
        "chosen_visits": pair.chosen_visits,
        "rejected_visits": pair.rejected_visits,
        "depth": pair.depth,
    }


def _texts(pair: PreferencePair) -> schema.Pair:
    path, chosen, rejected = _sides(pair)
    return {
        "turns": chat_before(pair.system, pair.history),
        "prompt": pair.prompt,
        "path": path,
        "chosen": chosen,
        "rejected": rejected,
    }


def _sides(pair: PreferencePair) -> tuple[list[str], list[str], list[str]]:
    """The steps that both sides share, then those of each side behind them."""
    if isinstance(pair, PathPair):
        better, worse = _steps(pair.chosen_path), _steps(pair.rejected_path)
    else:
        assert isinstance(pair, StepPair)
        better, worse = _steps([*pair.path, pair.chosen]), _steps([*pair.path, pair.rejected])
    both = zip(better, worse, strict=False)
    shared = sum(1 for _ in takewhile(lambda steps: steps[0] == steps[1], both))
    return better[:shared], better[shared:], worse[shared:]


def _steps(texts: Sequence[str]) -> list[str]:
    """The steps of a path, of which one text may have several: those of a whole answer."""
    return [step for text in texts for step in _STEP_END.split(text) if step]
