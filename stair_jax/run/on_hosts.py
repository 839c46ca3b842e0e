"""Stages that the driver of a cluster has run on its machines, by one program of all of them.

Each machine runs the ordinary command, with `--only=STAGE,...`: a program of `jax.distributed` as
it is without a cluster, with checkpoints and records of its own. The driver waits meanwhile, with
the lock of the working folder lent to the program, whose first process writes there.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from stair_jax import storage
from stair_jax.cluster.address import read_address
from stair_jax.cluster.hosts import Hosts, ThisMachine
from stair_jax.cluster.program import Program, run_program
from stair_jax.cluster.ray_hosts import RayHosts
from stair_jax.monitoring import METRICS_FILE, SAMPLES_FILE, SPEED_FILE, say
from stair_jax.run.compilation_cache import cache_folder
from stair_jax.run.lock import Lock
from stair_jax.run.run_config import RunConfig
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.stage_times import TIMES_FILE
from stair_jax.run.workdir import is_complete

_NO_WORK = (METRICS_FILE, SPEED_FILE, SAMPLES_FILE, TIMES_FILE)  # each start adds to them
_CONFIG = ".config.{}.json"  # of one program, so that no machine takes an older one for it


class OnHosts:
    """The machines of `runtime.cluster`, as far as stages are run there that are not dealt out."""

    def __init__(self, config: RunConfig, workdir: Path, lock: Lock):
        """Nothing is started.

        Args:
          config: of the run.
          workdir: its folder.
          lock: of the folder.
        """
        self._config, self._workdir, self._lock = config, workdir.resolve(), lock

    def does(self, entry: StageEntry) -> bool:
        """Whether a stage needs devices, and workers have no part in it."""
        return entry.stage.PROCESSES == "all" and not entry.stage.DEALS

    def run(self, left: Sequence[StageEntry]) -> Sequence[StageEntry]:
        """Runs the first of the stages that are left, and those behind it that go with it.

        Returns:
          the stages that were run.

        Raises:
          UserError: as `run_program`.
        """
        together: list[StageEntry] = []
        for entry in left:
            if not self.does(entry):
                break
            together.append(entry)
        names = [entry.name for entry in together]
        with self._written() as config, self._hosts(config) as hosts:
            self._run(names, config, hosts)
        for name in names:
            assert is_complete(self._workdir, name), f"the program left {name} unfinished"
        return together

    def check(self, left: Sequence[StageEntry]) -> None:
        """Checks that the stages that are left fit the machines, before the first one is begun.

        A program checks all of them when it starts, and workers what they are to do. So a program
        is started for this only where there is one that is not the first to work.

        Raises:
          UserError: a stage does not fit.
        """
        if not any(map(self.does, left)) or self.does(left[0]):
            return
        with self._written() as config, self._hosts(config) as hosts:
            if hosts.are_there(self._count):
                self._run([], config, hosts)
            else:
                say("too few machines are there: what fits them is checked when they are")

    @property
    def _count(self) -> int:
        return self._config.runtime.training_hosts

    def _run(self, names: Sequence[str], config: Path, hosts: Hosts) -> None:
        words = ["-m", "stair_jax.launch", "run", f"--config={config}"]
        words += [f"--workdir={self._workdir}", f"--only={','.join(names)}"]
        name = ", ".join(names) or "check of the devices"
        program = Program(name, words, lambda: _mark(self._workdir, names), self._count)
        with self._lock.lent():
            run_program(program, hosts)

    @contextmanager
    def _hosts(self, config: Path) -> Iterator[Hosts]:
        """The machines that see a file, for the time of one program."""
        address = read_address(self._config.runtime.cluster)
        if address.is_local:
            yield ThisMachine()
            return
        with RayHosts(address, config) as hosts:
            yield hosts

    @contextmanager
    def _written(self) -> Iterator[Path]:
        """The config in a file, as overrides and changes have made it."""
        for old in self._workdir.glob(_CONFIG.format("*")):
            with suppress(OSError):  # of a driver that was killed
                old.unlink()
        path = self._workdir / _CONFIG.format(secrets.token_hex(8))
        settings = self._config.effective()
        if programs := cache_folder():  # that of a sweep is in no cell
            runtime = replace(self._config.runtime, compilation_cache=str(programs))
            settings["runtime"] = runtime
        storage.write_json(path, settings)
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()


def _mark(workdir: Path, names: Sequence[str]) -> object:
    """How far stages are: what is finished, checkpoints, and files that hold work."""
    found: list[object] = [is_complete(workdir, name) for name in names]
    for name in names:
        for path in sorted((workdir / name).rglob("*")):
            within = path.relative_to(workdir)
            if within.parts[1] == "checkpoints":
                found += [within.parts[2]] if path.name.isdigit() else []
            elif path.is_file() and path.name not in _NO_WORK and "events.out" not in path.name:
                found.append((within, path.stat().st_size))
    return found
