"""Records that several processes make side by side, each by its key, joined at the end.

Each process appends to a log of its own; when all is there the first one writes one file of JSON
lines, in the order of the keys, and removes the logs. What a log holds is never made again, by
however many processes the work is gone on with.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.record_log import RecordLog
from stair_jax.search.tree_repair import repair
from stair_jax.storage import atomic_file, json_line, read_jsonl

Row = Mapping[str, Any]
_WAIT = 3600.0  # seconds that others wait where one reads what is there


class Shards:
    """The records of one file while they are made.

    Attributes:
      path: of the file, when all is there.
    """

    def __init__(self, path: Path, keys: Sequence[str]):
        """Looks at nothing yet.

        Args:
          path: of the finished file.
          keys: of all records, in the order of the file; each is the `id` of its records.
        """
        self.path, self._keys = path, list(keys)

    def is_finished(self) -> bool:
        """Whether the file is there; logs that a killed writer did not remove are removed then."""
        if not self.path.exists():
            return False
        if collectives.is_main():
            for path in self._logs():
                path.unlink()
        return True

    @cached_property
    def done(self) -> set[str]:
        """Keys that were there at the start, of whichever process; damaged logs are repaired."""
        if collectives.is_main():
            for path in self._logs():
                if dropped := repair(path):
                    say(f"{path}: {dropped}; what is not in it is made again")
        collectives.barrier(f"the repair of {self.path.name}", _WAIT)
        found = {str(record["id"]) for path in self._logs() for record in RecordLog(path)}
        collectives.barrier(f"the start of {self.path.name}", _WAIT)
        return found

    @cached_property
    def open(self) -> list[str]:
        """Keys that were not there at the start, of all processes."""
        return [key for key in self._keys if key not in self.done]

    def left(self) -> list[str]:
        """Keys that this process has to make: every so many of those that are not there."""
        return self.open[collectives.process_index() :: collectives.num_processes()]

    def extend(self, found: Iterable[tuple[str, Sequence[Row]]]) -> None:
        """Writes the records of keys, of each all or none; on the disk when this returns."""
        self._log.extend({"id": key, "rows": list(rows)} for key, rows in found)

    def finish(self) -> None:
        """Waits for all processes; the first one writes the file and removes the logs."""
        collectives.barrier(f"the end of {self.path.name}", collectives.PATIENCE)
        if collectives.is_main():
            logs = self._logs()
            places = {id: place for path in logs for id, place in _places(RecordLog(path))}
            with atomic_file(self.path) as file:
                for key in self._keys:
                    log, begin, end = places[key]
                    file.writelines(map(json_line, log.at(begin, end)["rows"]))
            for path in logs:
                path.unlink()
        collectives.barrier(f"the file {self.path.name}", _WAIT)

    def read(self) -> list[dict[str, Any]]:
        """The rows of the finished file."""
        return read_jsonl(self.path)

    @cached_property
    def _log(self) -> RecordLog:
        return RecordLog(self._log_path(str(collectives.process_index())))

    def _logs(self) -> list[Path]:
        return sorted(self.path.parent.glob(self._log_path("*").name))

    def _log_path(self, part: str) -> Path:
        return self.path.with_name(f".{self.path.stem}.part{part}.jsonl.gz")


def _places(log: RecordLog) -> Iterator[tuple[str, tuple[RecordLog, int, int]]]:
    """Where the records of a log stand, by their keys."""
    begin = 0
    for record, end in log.members():
        yield record["id"], (log, begin, end)
        begin = end
