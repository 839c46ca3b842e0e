"""What `run`, `evaluate` and `synthesize` do with a config: join others, check, run the stages."""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.parallel.processes import cluster, collectives
from stair_jax.reports.html.at_end import report_at_end
from stair_jax.run.compilation_cache import use_compilation_cache, users_cache
from stair_jax.run.run_config import RunConfig, read_config
from stair_jax.run.show_config import format_config
from stair_jax.stages import STAGES

_CPU_SLOTS = 8  # on a CPU every slot costs time and memory, whether it is in use or not


def add_redo_flags(parser: argparse.ArgumentParser) -> None:
    """Flags about work that is there already, and those of several processes."""
    parser.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="STAGE",
        help="make a stage, and what depends on it, anew; may be repeated",
    )
    parser.add_argument(
        "--yes", action="store_true", help="delete what --redo and --lengthen make stale, unasked"
    )
    cluster.add_flags(parser)


def join(options: argparse.Namespace, session: Session) -> None:
    """Joins the other processes of the run, where the flags say that there are some."""
    processes = cluster.read_flags(options)
    session.on_interrupt = "the same command goes on where it stopped"
    if processes is not None:
        before = signal.getsignal(signal.SIGTERM)
        session.watchdog = cluster.join(processes)
        signal.signal(signal.SIGTERM, before)  # JAX has put its own in this place


def leave(session: Session) -> None:
    """Waits for the other processes, and ends with them."""
    if session.watchdog is not None:
        collectives.barrier("the end of the run", collectives.PATIENCE)
        session.watchdog.leave(0)


def keep_programs(config: RunConfig, folder: Path) -> None:
    """Keeps compiled programs where the config says, or in `folder`."""
    named = config.runtime.compilation_cache
    if place := folder / ".jax_cache" if named is None else named:
        use_compilation_cache(place)  # makes the folder: not before all is checked


def report(config: RunConfig, workdir: Path) -> None:
    """Writes the report of a run that is done, in its first process, where the config wants it."""
    if config.runtime.report and collectives.is_main():
        report_at_end(workdir)


def agreement(options: argparse.Namespace) -> Callable[[Sequence[str]], bool]:
    """Who is asked before anything is deleted: nobody, or the user."""
    return (lambda names: True) if options.yes else _ask


def _sizes(is_alone: bool) -> dict[str, int]:
    """Slots that suit a CPU. Several processes are joined before devices may be looked at."""
    import jax

    return {"slots": _CPU_SLOTS} if is_alone and jax.default_backend() == "cpu" else {}


def _is_dealt(arguments: Arguments) -> bool:
    """Whether the devices of this process are none of the run's."""
    return any(override.field == "runtime.cluster" for override in arguments.overrides)


def run_stages(values: Mapping[str, Any], arguments: Arguments, session: Session) -> None:
    """Runs the stages of a command that makes a config of its flags, in the folder of `--out`.

    Args:
      values: the sections of the config, but for `runtime`.
      arguments: with the flags `--out` and `--show-config`, and those of `add_redo_flags`.
      session: of the command.

    Raises:
      UserError: as `run_config`; or `--out` is missing.
    """
    options = arguments.options
    is_alone = cluster.read_flags(options) is None and not _is_dealt(arguments)
    runtime = {"compilation_cache": str(users_cache()), **_sizes(is_alone)}
    config = read_config({**values, "runtime": runtime}, STAGES, arguments.overrides)
    if options.show_config:
        print(format_config(config))
        return
    if not options.out:
        raise UserError("--out is missing: name the folder of the results, e.g. --out=results/a")
    run_config(config, Path(options.out), options, session)


def run_config(
    config: RunConfig,
    workdir: Path,
    options: argparse.Namespace,
    session: Session,
    lengthened: Sequence[str] = (),
    is_fitted: bool = False,
    reused: Sequence[str] = (),
) -> None:
    """Runs what is not finished.

    Args:
      config: checked as far as its settings tell.
      workdir: folder of the run.
      options: the flags of `add_redo_flags`.
      session: of the command.
      lengthened: finished training stages that go on.
      is_fitted: whether what does not fit the devices is changed until it does.
      reused: folders of runs whose finished stages are taken over where they are the same.

    Raises:
      UserError: something that the run needs is missing, or does not fit.
    """
    if is_fitted and config.runtime.cluster:
        raise UserError(
            "--fit looks at the devices of one machine, and --cluster has others: see what "
            "`stair-jax plan --fit --topology=h100:8` changes, and set it"
        )
    join(options, session)
    from stair_jax.run import pipeline  # flags and settings are checked before this is imported
    from stair_jax.run.reuse import donor_folders

    donors = donor_folders(reused, workdir)
    anew = pipeline.Anew(options.redo, list(lengthened), agreement(options))
    if is_fitted:
        from stair_jax.run.fit_run import check_and_fit

        config, models = check_and_fit(config, workdir, anew.stages(config.stages))
    else:
        models = pipeline.check(config, workdir, anew)
    keep_programs(config, workdir)
    pipeline.run(config, workdir, anew, models, pipeline.Others(donors))
    report(config, workdir)
    leave(session)


def run_part(
    config: RunConfig,
    workdir: Path,
    options: argparse.Namespace,
    session: Session,
    names: Sequence[str],
) -> None:
    """Runs some stages for a driver, as one process or as one of several.

    Args:
      config: of the run.
      workdir: of the run.
      options: the flags of `add_redo_flags`.
      session: of the command.
      names: of the stages.

    Raises:
      UserError: as `pipeline.run_part`.
    """
    join(options, session)
    from stair_jax.run import pipeline

    keep_programs(config, workdir)
    pipeline.run_part(config, workdir, names)
    leave(session)


def _ask(names: Sequence[str]) -> bool:
    """Asks whether the folders of stages may be deleted."""
    question = f"delete and make anew: {', '.join(names)}"
    if not sys.stdin.isatty():
        raise UserError(f"to {question}, add --yes")
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
