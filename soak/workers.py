"""Workers of one search are killed one after another, and now and then the driver with them.

Its trees then equal those of a search without workers, but for `seconds` and `worker`, and none is
lost. A kill waits until a tree was finished since the last one, so that the search gets on; the
worker that is killed may be at work or about to start.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soak import kills
from soak.command import Command, Started
from soak.result import Result
from stair_jax.monitoring import Progress
from stair_jax.record_log import RecordLog

OVERRIDES: Mapping[str, Any] = dict(kills.OVERRIDES) | {
    "stages": ("pocket:data", "model:base", "sft", "search:search1"),
}
TREES = "search1/trees.jsonl.gz"
_SEARCHED = "search1"
_POLL = 0.05  # seconds
_LONGEST_DELAY = 1.0  # seconds from a tree to the kill
_PATIENCE = 300.0  # seconds without a tree, after which the search hangs
_MOST_RUNS = 3  # for one kill: a run may end before its first one
_DRIVER_EVERY = 20  # workers killed, after which the driver is
_LEAST_TREES = 20
_TREES_A_KILL = 2  # about as many are finished from one kill to the next: one search has room
_NAME = b"ray::WorkerProcess"


def run(
    size: int,
    seed: int,
    folder: Path,
    overrides: Mapping[str, Any] = OVERRIDES,
    trees: int = 0,
    workers: int = 2,
) -> Result:
    """Kills `size` workers, and the driver after every twentieth.

    Args:
        size: number of workers that are killed.
        seed: of the random moments.
        folder: for the working folders and logs.
        overrides: fields of configs/pocket.py.
        trees: of the search; 0: as many as the kills need.
        workers: at once.
    """
    result = Result("workers")
    trees = trees or max(_LEAST_TREES, _TREES_A_KILL * size)
    overrides = {**overrides, "pocket.num_search": trees}
    alone = Command.of_config("configs/pocket.py", folder / "compiled", overrides)
    result.figures["undisturbed_run_s"] = alone.finish(folder / "undisturbed")
    dealt = replace(alone, arguments=(*alone.arguments, f"--cluster=local:{workers}"))
    expected = read_trees(folder / "undisturbed" / TREES)
    progress = Progress("workers", size, "kills")
    while result.counts["workers killed"] < size and not result.failures:
        workdir = folder / f"run{result.counts['runs']}"
        result.counts["runs"] += 1
        names = [label.rpartition(":")[2] for label in overrides["stages"]]
        for name in names[: names.index(_SEARCHED)]:
            shutil.copytree(folder / "undisturbed" / name, workdir / name)
        _Run(dealt, workdir, result, size, seed, progress).to_end()
        if result.counts["runs"] > _MOST_RUNS * (result.counts["workers killed"] + 1):
            result.fail("nothing was killed", seed, f"logs {workdir}.*.log", size)
        for difference in compare(expected, read_trees(workdir / TREES)):
            result.fail(difference, seed, f"logs {workdir}.*.log", size)
    progress.close()
    return result


def read_trees(path: Path) -> dict[str, dict[str, Any]]:
    """The trees by id, without what may differ."""
    trees = {}
    for record in RecordLog(path):
        assert record["id"] not in trees, f"{path} has {record['id']} twice"
        trees[record["id"]] = {
            name: value for name, value in record.items() if name not in ("seconds", "worker")
        }
    return trees


def compare(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong, in words."""
    if lost := sorted(expected.keys() - found.keys()):
        yield f"trees were lost: {', '.join(lost)}"
    if added := sorted(found.keys() - expected.keys()):
        yield f"trees of no prompt: {', '.join(added)}"
    for id in sorted(expected.keys() & found.keys()):
        if expected[id] != found[id]:
            yield f"tree {id} is another one"


def workers_below(parent: int) -> list[int]:
    """Process ids of the workers that a process has started, itself or through others."""
    return [child for child in descendants(parent) if _is_worker(child)]


def descendants(parent: int) -> list[int]:
    """Process ids of the children of a process, and of theirs."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, front = [], {parent}
    while front := {child for child, own in parents.items() if own in front}:
        found += sorted(front)
    return found


def _is_worker(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith(_NAME)
    except OSError:
        return False


@dataclass
class _Run:
    """One run of the command, started again when its driver was killed."""

    command: Command
    workdir: Path
    result: Result
    size: int
    seed: int
    progress: Progress

    def to_end(self) -> None:
        """Kills as long as the search goes on and kills are left."""
        is_done = False
        while not is_done:
            label = f"start{self.result.counts['drivers killed']}"
            with self.command.start(self.workdir, label) as started:
                is_done = self._disturb(started)

    def _disturb(self, started: Started) -> bool:
        """Returns whether the run is over; False: its driver was killed."""
        trees, seen_at = self._num_trees(), time.monotonic()
        while started.is_running:
            if (now := self._num_trees()) > trees and self._has_kills_left:
                if self._kill(started):
                    return False
                trees, seen_at = self._num_trees(), time.monotonic()
            elif now > trees:
                trees, seen_at = now, time.monotonic()
            elif time.monotonic() - seen_at > _PATIENCE:
                self._fail(f"no tree for {_PATIENCE:.0f} s", started)
                return True
            time.sleep(_POLL)
        statuses = started.wait(60)
        if any(statuses) or None in statuses:
            self._fail(f"exited with {statuses}", started)
        return True

    @property
    def _has_kills_left(self) -> bool:
        return self._is_drivers_turn or self.result.counts["workers killed"] < self.size

    @property
    def _is_drivers_turn(self) -> bool:
        counts = self.result.counts
        return counts["drivers killed"] < counts["workers killed"] // _DRIVER_EVERY

    def _kill(self, started: Started) -> bool:
        """Kills a worker, or the driver; returns whether it was the driver."""
        counts, is_driver = self.result.counts, self._is_drivers_turn
        rng = random.Random(self.seed + counts.total())
        time.sleep(rng.uniform(0.0, _LONGEST_DELAY))
        victims = workers_below(started.process_id)
        if not started.is_running or not victims:
            return False
        if is_driver:
            started.send(0, signal.SIGKILL)
            started.wait(60)
        else:
            try:
                os.kill(rng.choice(victims), signal.SIGKILL)
            except ProcessLookupError:  # the run has just ended
                return False
        counts.update(["drivers killed" if is_driver else "workers killed"])
        self.progress.update(counts["workers killed"], failures=len(self.result.failures))
        return is_driver

    def _num_trees(self) -> int:
        path = self.workdir / TREES
        return path.read_bytes().count(b"\x1f\x8b\x08") if path.exists() else 0

    def _fail(self, what: str, started: Started) -> None:
        detail = f"logs {self.workdir}.*.log"
        self.result.fail(f"{what}: {started.output()[-500:]}", self.seed, detail, self.size)
