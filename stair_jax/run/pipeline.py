"""The stages of a run in their order, each done once: check what is there, run the rest.

A stage is finished when its folder holds `complete.json` (`stage_records.py`). In a run of several
processes all of them go through the stages in step. The first one alone looks at records, writes
them, and tells the others what there is to do. A stage whose class says `PROCESSES = "first"` is
done by the first one, on its own devices, while the others wait.

With `runtime.cluster` the process of the command is the driver of such runs: it deals out the
stages that can be (`Stage.DEALS`), does those that need no device, and has the others run on the
machines of the cluster, by processes that call `run_part` (`on_hosts.py`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import duration, say
from stair_jax.parallel.processes import collectives
from stair_jax.run.checks import (
    Models,
    check_bases,
    check_devices,
    check_environment,
    planned_models,
)
from stair_jax.run.context import StageContext
from stair_jax.run.devices import leave_accelerators
from stair_jax.run.disk import check_disk
from stair_jax.run.lock import HANDED_OVER, lock_holder, locked
from stair_jax.run.on_hosts import OnHosts
from stair_jax.run.out_of_memory import out_of_memory, what_to_lower
from stair_jax.run.reuse import own_files, taker
from stair_jax.run.run_config import RunConfig
from stair_jax.run.runtime import Runtime
from stair_jax.run.sheet import format_sheet
from stair_jax.run.source_hashes import SourceHashes, borrow_hashes, changed_source
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.stage_records import STARTED_FILE, check_bytes, write_complete, write_record
from stair_jax.run.stage_times import timed
from stair_jax.run.unneeded_models import (
    finish_removals,
    remove_unneeded_models,
    require_models,
)
from stair_jax.run.workdir import (
    StageState,
    check_lengthening,
    check_names,
    dependents,
    finish_reopening,
    look,
    remove,
    reopen,
    write_config,
)

_BARRIER = 3600.0  # seconds between the first and the last process at a barrier; files are hashed
_SEEN_AFTER = 60.0  # seconds until a file of one machine is seen on another


@dataclass(frozen=True)
class Others:
    """Other runs with which this one shares stages.

    Attributes:
      donors: working folders of which a finished stage is taken over where it is the same.
      share: called before models that are not needed any more are removed.
    """

    donors: Sequence[Path] = ()
    share: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Anew:
    """What is finished and is to be worked on again.

    Attributes:
      redo: stages to make anew.
      lengthen: training stages to go on with, to the length that the config says now.
      agree: asked before anything is deleted, with the names of the stages; False: nothing is.
    """

    redo: Sequence[str] = ()
    lengthen: Sequence[str] = ()
    agree: Callable[[Sequence[str]], bool] = lambda names: True

    def stages(self, entries: Sequence[StageEntry]) -> list[str]:
        """The stages that are to be worked on again; those that depend on the named ones too.

        Raises:
          UserError: the run has no stage of a name.
        """
        check_names("redo", self.redo, entries)
        check_names("lengthen", self.lengthen, entries)
        return dependents([*self.redo, *self.lengthen], entries)


def check(config: RunConfig, workdir: Path, anew: Anew = Anew()) -> Models:
    """Checks that the run fits the user's files and the devices; writes nothing.

    Returns:
      the models of its stages, as far as they are known, for the sheet of the run.

    Raises:
      UserError: it does not fit; names the stage.
    """
    redone = anew.stages(config.stages)
    check_environment(config, workdir, redone)
    if config.runtime.cluster:
        leave_accelerators()
        return planned_models(config, workdir, redone)
    return check_devices(config, workdir, redone)


def run(
    config: RunConfig,
    workdir: Path,
    anew: Anew = Anew(),
    models: Models | None = None,
    others: Others = Others(),
) -> None:
    """Runs the stages that are not finished in `workdir`.

    Args:
      config: of the run.
      workdir: its folder.
      anew: what is finished and is to be worked on again.
      models: what `check` gave; None: it is called here.
      others: runs with which it shares stages.

    Raises:
      UserError: as `check`, or the run does not match what `workdir` holds.
    """
    entries = config.stages
    models = check(config, workdir, anew) if models is None else models
    is_driver = bool(config.runtime.cluster)
    patience = HANDED_OVER if is_driver else 0.0
    with locked(workdir, patience) if collectives.is_main() else nullcontext() as lock:
        states: dict[str, StageState] = {}
        if collectives.is_main():
            clear(entries, workdir, anew)
            borrow_hashes(workdir, others.donors)
            fill = taker(workdir, others.donors, anew.stages(entries))
            states = look(entries, workdir, fill if others.donors else None)
            left = [entry for entry in entries if not states[entry.name].is_finished]
            check_bases(entries, left, workdir)
            check_disk(entries, left, models, config.runtime.keep_models, workdir)
            write_config(workdir, config.effective())
            say(format_sheet(config, workdir, states, models))
        _check_agreement(entries, workdir)
        states = _shared(states)
        on_hosts = OnHosts(config, workdir, lock) if is_driver and lock is not None else None
        _run_rest(entries, states, workdir, config.runtime, others.share, on_hosts)


def run_part(config: RunConfig, workdir: Path, names: Sequence[str]) -> None:
    """Runs some stages of a run whose driver waits meanwhile, and has checked and written the rest.

    Args:
      config: of the run.
      workdir: its folder.
      names: of the stages; empty: what is left of the run is checked, and nothing is run.

    Raises:
      UserError: what is left does not fit the devices; or as `run`.
    """
    entries = config.stages
    check_names("only", names, entries)
    part = [entry for entry in entries if entry.name in names]
    runtime = replace(config.runtime, cluster="")
    check_environment(replace(config, stages=tuple(part), runtime=runtime), workdir)
    check_devices(config, workdir)
    with locked(workdir, HANDED_OVER) if collectives.is_main() else nullcontext():
        states = look(entries, workdir) if collectives.is_main() else {}
        _check_agreement(entries, workdir)
        states = _shared(states)
        _check_inputs(part, states)
        intact: set[str] = set()
        for entry in part:
            if not states[entry.name].is_finished:
                _run_whole(entry, entries, states, workdir, runtime, intact)


def _check_inputs(part: Sequence[StageEntry], states: Mapping[str, StageState]) -> None:
    """Raises a UserError if stages of a part need one that is neither finished nor of it."""
    names = {entry.name for entry in part}
    for entry in (each for each in part if not states[each.name].is_finished):
        for name in entry.input_names:
            if name not in names and not states[name].is_finished:
                raise UserError(
                    f"stage {entry.name} needs {name}, which is not finished: name it too"
                )


def clear(entries: Sequence[StageEntry], workdir: Path, anew: Anew) -> None:
    """Deletes what is to be made anew, once that is agreed to.

    Raises:
      UserError: it is not agreed to; or a stage cannot be made anew, or go on.
    """
    finish_reopening(entries, workdir)
    finish_removals(entries, workdir)
    require_models(entries, dependents([*anew.redo, *anew.lengthen], entries), workdir)
    stale = [n for n in dependents(anew.redo, entries) if (workdir / n).exists()]
    records = {}
    for entry in (each for each in entries if each.name in anew.lengthen):
        states = look(entries[: entries.index(entry)], workdir)
        inputs = {name: states[name].fingerprint for name in entry.input_names}
        records[entry.name] = (entry, check_lengthening(entry, inputs, workdir), inputs)
        later = [name for name in dependents([entry.name], entries) if name != entry.name]
        stale += [name for name in later if (workdir / name).exists() and name not in stale]
    if stale and not anew.agree(stale):
        raise UserError("nothing was deleted, and nothing was run")
    remove(stale, workdir)
    for entry, record, inputs in records.values():
        reopen(entry, record, inputs, workdir)


def _shared(states: dict[str, StageState]) -> dict[str, StageState]:
    """The states as the first process sees them, in all processes."""
    plain = {
        name: [state.is_finished, state.identity, state.fingerprint]
        for name, state in states.items()
    }
    return {name: StageState(*values) for name, values in collectives.broadcast(plain).items()}


def _check_agreement(entries: Sequence[StageEntry], workdir: Path) -> None:
    """Checks that all processes run the same config in the same folder.

    Raises:
      UserError: names a process that does not.
    """
    if collectives.num_processes() == 1:
        return
    own = [
        storage.fingerprint(entry.identity({name: "" for name in entry.input_names}))
        for entry in entries
    ]
    mark = collectives.broadcast(lock_holder(workdir) if collectives.is_main() else None)
    deadline = time.monotonic() + _SEEN_AFTER
    while (is_shared := lock_holder(workdir) == mark) is False and time.monotonic() < deadline:
        time.sleep(0.5)
    for process, (stages, sees) in enumerate(
        collectives.gather("the start of the run", [own, is_shared])
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
    entries: Sequence[StageEntry],
    states: dict[str, StageState],
    workdir: Path,
    runtime: Runtime,
    share: Callable[[], None],
    on_hosts: OnHosts | None,
) -> None:
    intact: set[str] = set()  # made or checked in this run
    finished = [entry.name for entry in entries if states[entry.name].is_finished]
    _remove_models(entries, finished, workdir, runtime, share)
    if on_hosts is not None:
        on_hosts.check([entry for entry in entries if entry.name not in finished])
    for entry in entries:
        if states[entry.name].is_finished:
            say(f"{_title(entry, entries)}: finished before")
            _summarize(entry, workdir)
        elif entry.name in finished:
            continue  # together with one before it
        elif on_hosts is not None and on_hosts.does(entry):
            together = on_hosts.run([each for each in entries if each.name not in finished])
            intact |= {name for each in together for name in (each.name, *each.input_names)}
            finished += [each.name for each in together]
        else:
            _run_whole(entry, entries, states, workdir, runtime, intact)
            finished.append(entry.name)
        _remove_models(entries, finished, workdir, runtime, share)


def _run_whole(
    entry: StageEntry,
    entries: Sequence[StageEntry],
    states: dict[str, StageState],
    workdir: Path,
    runtime: Runtime,
    intact: set[str],
) -> None:
    """Runs one stage on inputs that are as they were made; adds to what is known to be `intact`."""
    if collectives.is_main():
        for name in set(entry.input_names) - intact:
            check_bytes(workdir / name)
    say(f"{_title(entry, entries)}: starts")
    seconds = _run_stage(entry, states[entry.name], workdir, runtime)
    intact |= {entry.name, *entry.input_names}
    say(f"{_title(entry, entries)}: done in {duration(seconds)}")
    _summarize(entry, workdir)


def _title(entry: StageEntry, entries: Sequence[StageEntry]) -> str:
    return f"[{entries.index(entry) + 1} of {len(entries)}] {entry.name}"


def _remove_models(
    entries: Sequence[StageEntry],
    finished: Sequence[str],
    workdir: Path,
    runtime: Runtime,
    share: Callable[[], None],
) -> None:
    """Removes models that no stage needs any more, where the config wants it."""
    if collectives.is_main() and runtime.keep_models == "needed":
        share()
        remove_unneeded_models(entries, finished, workdir)


def _summarize(entry: StageEntry, workdir: Path) -> None:
    """Says what a stage has to say of itself, new or old."""
    if collectives.is_main() and (text := entry.stage.summary(workdir / entry.name)):
        say(text)


def _timed(entry: StageEntry, folder: Path, runtime: Runtime) -> AbstractContextManager[None]:
    """Writes down how long the first process works on a stage."""
    workers = runtime.cluster if entry.stage.DEALS else ""
    return timed(folder, workers) if collectives.is_main() else nullcontext()


def _run_stage(entry: StageEntry, state: StageState, workdir: Path, runtime: Runtime) -> float:
    """Runs one stage and writes its records; returns its seconds."""
    folder = workdir / entry.name
    if collectives.is_main():
        storage.make_folder(folder)
        own_files(folder)
        write_record(folder / STARTED_FILE, state.identity)
    collectives.barrier(f"the start of stage {entry.name}", _BARRIER)
    context = StageContext(
        name=entry.name,
        runtime=runtime,
        seed=entry.seed,
        folder=folder,
        inputs={
            field: workdir / names if isinstance(names, str) else [workdir / name for name in names]
            for field, names in entry.stage.inputs().items()
        },
        fingerprint=state.fingerprint,
        is_lengthened=bool(state.history),
    )
    start = time.monotonic()
    by_first = entry.stage.PROCESSES == "first"
    if collectives.is_main() or not by_first:
        try:
            with storage.using_disk(folder), _timed(entry, folder, runtime):
                entry.stage.run(context)
        except UserError as error:
            raise UserError(f"stage {entry.name}: {error}") from error
        except Exception as error:
            if not (text := out_of_memory(error)):
                raise
            advice = what_to_lower(entry.stage, entry.name, runtime, entry.stage.MEMORY)
            raise UserError(f"stage {entry.name}: {text}: {advice}") from error
    seconds = collectives.PATIENCE if by_first else _BARRIER
    collectives.barrier(f"the end of stage {entry.name}", seconds)
    if collectives.is_main():
        _check_sources(entry, state, workdir)
        write_complete(folder, state.identity)
    collectives.barrier(f"the record of stage {entry.name}", _BARRIER)
    return time.monotonic() - start


def _check_sources(entry: StageEntry, state: StageState, workdir: Path) -> None:
    """Raises a UserError if a file of the user's was edited since the run looked at it."""
    now = SourceHashes(workdir).of(entry.stage)
    if (changed := changed_source(state.identity.get("sources", {}), now)) is not None:
        raise UserError(f"stage {entry.name}: {changed} was changed meanwhile: run again")
