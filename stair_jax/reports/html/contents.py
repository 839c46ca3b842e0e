"""All that a report has of its runs: blocks by name, each made when it is asked for."""

import datetime
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stair_jax import __version__
from stair_jax.errors import UserError
from stair_jax.reports.html.both import both_block
from stair_jax.reports.html.cases import cases_part, read_cases
from stair_jax.reports.html.curves import read_curves
from stair_jax.reports.html.pairs import (
    PairFile,
    not_listed,
    pairs_of_trees,
    pairs_part,
    read_pairs,
)
from stair_jax.reports.html.parts import Part
from stair_jax.reports.html.runs import read_stages, run_head
from stair_jax.reports.html.schema import SCHEMA, Both, Head, Run
from stair_jax.reports.html.searches import search_statistics
from stair_jax.reports.html.tables import read_evaluations, with_table
from stair_jax.reports.html.trees import SearchTrees, read_searches, trees_part, with_trees
from stair_jax.reports.records import RunRecords, read_run
from stair_jax.run.stage_records import COMPLETE_FILE
from stair_jax.run.sweep_manifest import read_manifest

_MOST_RUNS = 2


@dataclass(frozen=True)
class RunContents:
    """A run.

    Attributes:
      records: of its finished stages.
      name: that it has on the page.
    """

    records: RunRecords
    name: str

    @cached_property
    def _pair_files(self) -> list[PairFile]:
        return read_pairs(self.records)

    @cached_property
    def _searches(self) -> list[SearchTrees]:
        return read_searches(self.records, pairs_of_trees(self._pair_files))

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The lists of which each row has texts, by name."""
        trees = trees_part(self._searches)
        columns = trees.lists[0]
        names = [columns["stages"][number] for number in columns["stage"]]
        places = {key: row for row, key in enumerate(zip(names, columns["id"], strict=True))}
        cases = cases_part(read_cases(self.records))
        return {"trees": trees, "pairs": pairs_part(self._pair_files, places), "cases": cases}

    @property
    def notes(self) -> list[str]:
        """What its lists leave out."""
        return not_listed(self._pair_files)

    @property
    def head(self) -> Run:
        """The run in short."""
        counts = {name: len(part) for name, part in self.parts.items()}
        counts["pairs"] = sum(file.total for file in self._pair_files)
        return run_head(self.records, self.name, counts)

    @property
    def lists(self) -> dict[str, Part]:
        """Those of its parts that have rows."""
        return {name: part for name, part in self.parts.items() if len(part)}

    def blocks(self) -> dict[str, Callable[[], Any]]:
        """What makes each block without texts; what the run does not have is no block."""
        found: dict[str, Callable[[], Any]] = {
            "stages": lambda: read_stages(read_run(self.records.folder)),  # some may end meanwhile
            "curves": lambda: read_curves(self.records),
        }
        if with_table(self.records):
            found["evaluations"] = lambda: read_evaluations(self.records)
        if with_trees(self.records):
            found["searches"] = lambda: search_statistics(self.records, self._searches)
        return found


@dataclass(frozen=True)
class Contents:
    """One run, or two side by side."""

    runs: tuple[RunContents, ...]

    def blocks(self) -> dict[str, Callable[[], Any]]:
        """What makes each block, but for the lists of parts and their texts."""
        found = {
            f"{name}/{number}": make
            for number, run in enumerate(self.runs)
            for name, make in run.blocks().items()
        }
        if len(self.runs) == _MOST_RUNS:
            found["both"] = self._both
        return found

    def head(self, notes: Sequence[str], live: bool) -> Head:
        """What the page knows first.

        Args:
          notes: what is left out of the file.
          live: whether the page is served.
        """
        lists = [f"{name}/{number}" for number, run in enumerate(self.runs) for name in run.lists]
        now = datetime.datetime.now(datetime.UTC)
        return {
            "schema": SCHEMA,
            "title": " and ".join(run.name for run in self.runs),
            "version": __version__,
            "written": f"{now:%Y-%m-%d %H:%M} UTC",
            "live": live,
            "runs": [run.head for run in self.runs],
            "notes": [*(note for run in self.runs for note in run.notes), *notes],
            "blocks": [*self.blocks(), *lists],
        }

    def _both(self) -> Both:
        first, second = (run.parts for run in self.runs)
        return both_block((first["trees"], second["trees"]), (first["cases"], second["cases"]))


def read_contents(folders: Sequence[Path]) -> Contents:
    """The contents of a report.

    Args:
      folders: of one run, or of two.

    Raises:
      UserError: these are more, no runs, or one run twice; or a record is damaged.
    """
    if not 1 <= len(folders) <= _MOST_RUNS:
        raise UserError(f"{len(folders)} runs are named: a report is of one run, or of two")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"{folders[0]} is named twice: name another run, or this one once")
    runs = [_read(folder) for folder in folders]
    times = Counter(run.name for run in runs)
    names = [run.name if times[run.name] == 1 else str(run.folder) for run in runs]
    return Contents(tuple(map(RunContents, runs, names)))


def _read(folder: Path) -> RunRecords:
    if (folder / COMPLETE_FILE).is_file():
        raise UserError(f"{folder} is a stage of a run: name the run, {folder.resolve().parent}")
    if (manifest := read_manifest(folder)) is not None:
        cell = next(iter(manifest.cells), "CELL")
        raise UserError(f"{folder} is a sweep: name a cell of it, such as {folder / cell}, or two")
    return read_run(folder)
