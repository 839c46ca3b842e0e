"""A search over several processes: each grows the trees of its part of the prompts.

A process writes a file of its own, and the first one puts all together at the end. A tree depends
on its prompt, the model and the settings alone, so that it is the same whoever grows it; also when
a search goes on with another number of processes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax.data.records import Prompt
from stair_jax.data.row_file import RowFile
from stair_jax.decoding.requests import EngineStats
from stair_jax.monitoring import Metrics, say
from stair_jax.parallel.processes import collectives
from stair_jax.record_log import RecordLog
from stair_jax.search.prompt_queue import DUPLICATE
from stair_jax.search.search_report import SearchReport, merge, tree_metrics
from stair_jax.search.tree_repair import repair
from stair_jax.storage import atomic_file, plain

TREES_FILE = "trees.jsonl.gz"


class RecordShards:
    """The records of a search in its folder.

    Attributes:
      prompts: those of this process, all where it is the only one. Prompts of the same id are in
        one part.
    """

    def __init__(self, folder: Path, prompts: RowFile[Prompt]):
        """Looks at no record yet."""
        self._folder, self._all, self.prompts = folder, prompts, prompts
        if collectives.num_processes() > 1:
            self.prompts = prompts.select(
                np.flatnonzero(_owners(prompts) == collectives.process_index())
            )

    @property
    def log(self) -> RecordLog:
        """Where this process writes its trees."""
        if collectives.num_processes() == 1:
            return RecordLog(self._folder / TREES_FILE)
        return RecordLog(self._folder / f".part{collectives.process_index()}.{TREES_FILE}")

    @cached_property
    def done(self) -> set[str]:
        """Ids of the prompts of this process whose trees were finished at the start.

        Damaged files are repaired before, and what was dropped is said.
        """
        return {id for id in self._finished if self.prompts.ids.places(id)}

    @property
    def num_finished(self) -> int:
        """Number of trees of all processes that were finished at the start."""
        return len(self._finished)

    @cached_property
    def _finished(self) -> set[str]:
        if collectives.is_main():
            for path in self._files():
                if dropped := repair(path):
                    say(f"{path}: {dropped}; trees that are not in it are searched again")
        collectives.barrier("the repair of the search", 3600.0)  # now the others may read
        finished = {record["id"] for path in self._files() for record in RecordLog(path)}
        collectives.barrier("the start of the search", 3600.0)  # now the files may grow
        return finished

    def open_metrics(self, silent: bool = False) -> Metrics:
        """The metrics of the stage, as far as the trees go that were finished at the start."""
        return Metrics(self._folder, len(self.done) if self.done else -1, silent=silent)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Those of each tree of the joined file by id, in the order of the prompts."""
        log = RecordLog(self._folder / TREES_FILE)
        rows = {record["id"]: tree_metrics(record) for record in log}
        return {id: rows[id] for id in self._sorted(rows)}

    def join(self, report: SearchReport) -> SearchReport | None:
        """Puts the trees into one file, in the order of the prompts; one process has but one.

        Returns:
          what all processes did, in the first one; None in the others.
        """
        own = plain(report)
        reports = collectives.gather("the end of the search", own, collectives.PATIENCE)
        if not collectives.is_main():
            return None
        files = self._files()
        if len(files) > 1 or not (self._folder / TREES_FILE).exists():
            self._join_files(files)
        whole = merge([_read(values) for values in reports])
        whole.skipped = self._in_order(whole.skipped)
        return whole

    def _files(self) -> list[Path]:
        """The joined file first, where it is there."""
        names = (TREES_FILE, f".part*.{TREES_FILE}")
        return [path for name in names for path in sorted(self._folder.glob(name))]

    def _join_files(self, files: Sequence[Path]) -> None:
        """Copies the records as they are, none twice: an earlier join may have been cut short."""
        places: dict[str, tuple[Path, int, int]] = {}
        for path in files:
            start = 0
            for record, end in RecordLog(path).members():
                places.setdefault(record["id"], (path, start, end))
                start = end
        with atomic_file(self._folder / TREES_FILE) as joined:
            for id in self._sorted(places):
                path, start, end = places[id]
                with open(path, "rb") as file:
                    file.seek(start)
                    joined.write(file.read(end - start))
        for path in files:
            if path.name != TREES_FILE:
                path.unlink()

    def _sorted(self, ids: Iterable[str]) -> list[str]:
        """Those ids that a prompt has, in the order of the prompts."""
        found = {id: self._all.ids.places(id)[:1] for id in ids}
        return sorted(filter(found.get, found), key=found.__getitem__)

    def _in_order(self, skipped: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """By place among all prompts; those that repeat an id stand behind its first prompt."""
        places = {id: self._all.ids.places(id) for id in {id for id, _ in skipped}}
        repeated: Counter[str] = Counter()
        ordered = {}
        for id, reason in skipped:
            repeated[id] += reason == DUPLICATE
            ordered[places[id][repeated[id] if reason == DUPLICATE else 0]] = id, reason
        return [ordered[place] for place in sorted(ordered)]


def _owners(prompts: RowFile[Prompt]) -> np.ndarray:
    """The process that has each prompt, in turn by new ids, [prompts] int64."""
    firsts = prompts.ids.firsts
    numbers = np.cumsum(firsts == np.arange(len(firsts))) - 1
    return numbers[firsts] % collectives.num_processes()


def _read(values: dict[str, Any]) -> SearchReport:
    """A report that came as JSON."""
    return SearchReport(
        **values
        | {
            "skipped": [tuple(pair) for pair in values["skipped"]],
            "counts": Counter(values["counts"]),
            "engine": EngineStats(**values["engine"]),
        }
    )
