"""The stages of a run in their order, each done once: check what is there, run the rest.

A stage is finished when its folder holds `complete.json`. Its fingerprint covers its settings, the
seed and the fingerprints of its inputs, so that a finished stage is used again only by a run that
would make the same artifact. `started.json` says the same of a stage that was interrupted.

In a run of several processes all of them go through the stages in step. The first one alone looks
at records, writes them, and tells the others what there is to do. A stage whose module says
`PROCESSES = "first"` is done by the first one, on its own devices, while the others wait.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.graph import Stage, leaves, make_graph
from stair_jax.monitoring import duration, say
from stair_jax.parallel import distributed
from stair_jax.stages.context import StageContext
from stair_jax.stages.runtime import Runtime

COMPLETE_FILE = "complete.json"
STARTED_FILE = "started.json"
_LOCK_FILE = ".lock"
_ABSENT = "(no such field)"
_BARRIER = 3600.0  # seconds between the first and the last process at a barrier; files are hashed
_SEEN_AFTER = 60.0  # seconds until a file of one machine is seen on another


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Runs the stages of `config` that are not finished in `workdir`.

    Raises:
      UserError: the config cannot be run, or does not match what `workdir` holds.
    """
    graph = make_graph(config)
    Runtime.read(config.get("runtime") or {})  # its mistakes are told before anything runs
    workdir = Path(workdir)
    with _lock(workdir) if distributed.is_main() else nullcontext():
        finished = _look(graph, config, workdir) if distributed.is_main() else []
        _check_agreement(graph, workdir)
        finished = distributed.broadcast(finished)
        _run_rest(graph, set(finished), workdir, FrozenConfigDict(config.get("runtime") or {}))


def _look(graph: Sequence[Stage], config: ConfigDict, workdir: Path) -> list[str]:
    """Names of the finished stages; writes the config beside them."""
    finished = [stage.name for stage in graph if _is_finished(stage, graph, workdir)]
    storage.write_json(workdir / "config.json", config.to_dict())
    return finished


def _check_agreement(graph: Sequence[Stage], workdir: Path) -> None:
    """Checks that all processes run the same config in the same folder.

    Raises:
      UserError: names a process that does not.
    """
    if distributed.num_processes() == 1:
        return
    own = [stage.fingerprint for stage in graph]
    mark = distributed.broadcast(_read_lock(workdir) if distributed.is_main() else None)
    deadline = time.monotonic() + _SEEN_AFTER
    while (is_shared := _read_lock(workdir) == mark) is False and time.monotonic() < deadline:
        time.sleep(0.5)
    for process, (stages, sees) in enumerate(
        distributed.gather("the start of the run", [own, is_shared])
    ):
        if not sees:
            raise UserError(
                f"process {process} does not see the files of process 0 in {workdir}: "
                "--workdir must be a folder that all processes share"
            )
        if stages != own:
            raise UserError(
                f"process {process} was started with another config than process 0: "
                "give all processes the same command"
            )


def _run_rest(
    graph: Sequence[Stage], finished: set[str], workdir: Path, runtime: FrozenConfigDict
) -> None:
    intact: set[str] = set()  # made or checked in this run
    for number, stage in enumerate(graph, start=1):
        title = f"[{number} of {len(graph)}] {stage.name}"
        if stage.name in finished:
            say(f"{title}: finished before")
            _summarize(stage, workdir)
            continue
        if distributed.is_main():
            for name in set(stage.input_names) - intact:
                _check_bytes(workdir / name)
        say(f"{title}: starts")
        seconds = _run_stage(stage, workdir, runtime)
        intact |= {stage.name, *stage.input_names}
        say(f"{title}: done in {duration(seconds)}")
        _summarize(stage, workdir)


def _summarize(stage: Stage, workdir: Path) -> None:
    """Says what a stage that sums up (`summary(folder) -> str`) has to say, new or old."""
    if not distributed.is_main():
        return
    if summary := getattr(stage.module, "summary", None):
        say(summary(workdir / stage.name))


def _run_stage(stage: Stage, workdir: Path, runtime: FrozenConfigDict) -> float:
    """Runs one stage and writes its records; returns its seconds."""
    folder = workdir / stage.name
    if distributed.is_main():
        storage.make_folder(folder)
        storage.write_json(folder / STARTED_FILE, stage.identity)
    distributed.barrier(f"the start of stage {stage.name}", _BARRIER)
    context = StageContext(
        name=stage.name,
        settings=FrozenConfigDict(dict(stage.settings)),
        runtime=runtime,
        seed=stage.seed,
        folder=folder,
        inputs={
            field: workdir / names if isinstance(names, str) else [workdir / name for name in names]
            for field, names in stage.inputs.items()
        },
    )
    start = time.monotonic()
    by_first = getattr(stage.module, "PROCESSES", "all") == "first"
    if distributed.is_main() or not by_first:
        try:
            with storage.using_disk(folder):
                stage.module.run(context)
        except UserError as error:
            raise UserError(f"stage {stage.name}: {error}") from error
    seconds = distributed.PATIENCE if by_first else _BARRIER
    distributed.barrier(f"the end of stage {stage.name}", seconds)
    if distributed.is_main():
        _complete(stage, folder)
    distributed.barrier(f"the record of stage {stage.name}", _BARRIER)
    return time.monotonic() - start


def _complete(stage: Stage, folder: Path) -> None:
    """Writes the record of a stage that has run."""
    files = {path: _describe(folder / path) for path in _artifact_files(folder)}
    record = {**stage.identity, "fingerprint": stage.fingerprint, "files": files}
    storage.write_json(folder / COMPLETE_FILE, record)
    (folder / STARTED_FILE).unlink()


def _is_finished(stage: Stage, graph: Sequence[Stage], workdir: Path) -> bool:
    """Whether the folder of `stage` holds its artifact, made by the same settings.

    Raises:
      UserError: it holds something else.
    """
    folder = workdir / stage.name
    if (folder / COMPLETE_FILE).exists():
        record = _read_record(folder / COMPLETE_FILE)
        _check_same(stage, record, "finished", graph, workdir)
        _check_sizes(folder, record)
        return True
    if (folder / STARTED_FILE).exists():
        _check_same(stage, _read_record(folder / STARTED_FILE), "started", graph, workdir)
    elif folder.exists() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise UserError(
            f"{folder} holds files, but no {COMPLETE_FILE} of a finished stage: "
            f"delete {folder}, or use another --workdir"
        )
    return False


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = storage.read_json(path)
        whole = all(
            isinstance(record[field], kind)
            for field, kind in (("kind", str), ("name", str), ("seed", int))
        ) and all(isinstance(record[field], dict) for field in ("settings", "inputs"))
        if path.name == COMPLETE_FILE:
            whole &= all({"bytes", "sha256"} <= file.keys() for file in record["files"].values())
    except (UserError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: delete {path.parent}, and run again to make it anew")
    return record


def _check_same(
    stage: Stage, record: Mapping[str, Any], state: str, graph: Sequence[Stage], workdir: Path
) -> None:
    """Compares what a record says of a stage with what the config asks for."""
    change = _change(stage, record)
    if change is None:
        return
    stale = [name for name in _with_dependents(stage, graph) if (workdir / name).exists()]
    folders = " and ".join(str(workdir / name) for name in stale)
    raise UserError(
        f"the stage {stage.name} was {state} with {change}: "
        f"use another --workdir, or delete {folders}"
    )


def _change(stage: Stage, record: Mapping[str, Any]) -> str | None:
    """The first difference to a record, in words."""
    wanted = stage.identity
    for field in ("kind", "name", "seed"):
        if record[field] != wanted[field]:
            return f"{field} = {record[field]!r}, and now it is {wanted[field]!r}"
    old, new = leaves(record["settings"]), leaves(wanted["settings"])
    for field in sorted({*old, *new}):
        before, now = old.get(field, _ABSENT), new.get(field, _ABSENT)
        if before != now:
            section = stage.name if field in stage.own_fields else stage.kind
            return f"config.{section}.{field} = {before!r}, and now it is {now!r}"
    for name in sorted({*record["inputs"], *wanted["inputs"]}):
        if record["inputs"].get(name) != wanted["inputs"].get(name):
            return f"another output of the stage {name} than this config makes"
    return None


def _with_dependents(stage: Stage, graph: Sequence[Stage]) -> list[str]:
    """The stage, and those of the graph that use its artifact, directly or not."""
    names = [stage.name]
    for other in graph:
        if other.name not in names and set(names) & set(other.input_names):
            names.append(other.name)
    return names


def _artifact_files(folder: Path) -> list[str]:
    """The files that later stages may read; checkpoints and events only serve while it runs."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in files
        if path.parts[0] not in ("checkpoints", STARTED_FILE, COMPLETE_FILE)
        and not path.name.startswith((".", "events.out."))
    )


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": storage.fingerprint_file(path)}


def _check_sizes(folder: Path, record: Mapping[str, Any]) -> None:
    """Checks that the files of a finished stage are there, at their sizes."""
    for name, file in record["files"].items():
        if not (folder / name).is_file():
            raise UserError(_made_anew(folder / name, "is missing", folder))
        if (folder / name).stat().st_size != file["bytes"]:
            raise UserError(_made_anew(folder / name, "has changed since then", folder))


def _check_bytes(folder: Path) -> None:
    """Checks the files of a finished stage byte by byte, before another stage reads them."""
    for name, file in _read_record(folder / COMPLETE_FILE)["files"].items():
        if storage.fingerprint_file(folder / name) != file["sha256"]:
            raise UserError(_made_anew(folder / name, "has changed since then", folder))


def _made_anew(path: Path, what: str, folder: Path) -> str:
    return (
        f"the stage {folder.name} was finished, but its file {path} {what}: "
        f"delete {folder}, and run again to make it anew"
    )


def _read_lock(workdir: Path) -> str:
    """Which run uses `workdir`, as far as can be seen from here."""
    try:
        return (workdir / _LOCK_FILE).read_text()
    except OSError:
        return ""


@contextmanager
def _lock(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of `workdir`; the lock of a process that died counts for nothing."""
    path = storage.make_folder(workdir) / _LOCK_FILE
    with storage.writing(path):
        file = open(path, "a+")  # noqa: SIM115 (closed below, which gives the lock up)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use by {file.read().strip() or 'another run'}: "
                "wait until it ends, or use another --workdir"
            ) from error
        except OSError:
            say(f"{workdir} is on a file system without locks: let no second run use it")
        with storage.writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
        with suppress(OSError):
            file.truncate(0)
