"""Runs the stages of a config in a working folder."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.parallel.processes import cluster, collectives
from stair_jax.run.compilation_cache import use_compilation_cache
from stair_jax.run.run_config import read_config
from stair_jax.run.show_config import format_config
from stair_jax.stages import STAGES

SUMMARY = "Runs the stages of a config; the same command again goes on where it stopped."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax run`."""
    parser.add_argument("--config", metavar="FILE", help="config file, or a recipe by its name")
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--show-config", action="store_true", help="print all settings of the run, and end"
    )
    parser.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="STAGE",
        help="make a stage, and what depends on it, anew; may be repeated",
    )
    parser.add_argument(
        "--lengthen",
        action="append",
        default=[],
        metavar="STAGE",
        help="go on with a finished training stage to the epochs of the config (keep_state)",
    )
    parser.add_argument(
        "--yes", action="store_true", help="delete what --redo and --lengthen make stale, unasked"
    )
    cluster.add_flags(parser)


def execute(arguments: Arguments, session: Session) -> int:
    """Runs what is not finished; returns the exit status."""
    options = arguments.options
    processes = cluster.read_flags(options)
    config = read_config(load_config(options.config), STAGES, arguments.overrides)
    if options.show_config:
        print(format_config(config))
        return 0
    if not options.workdir:
        raise UserError("--workdir is missing: name the folder of the run, e.g. --workdir=runs/a")
    workdir = Path(options.workdir)
    session.on_interrupt = "the same command goes on where it stopped"
    if processes is not None:
        before = signal.getsignal(signal.SIGTERM)
        session.watchdog = cluster.join(processes)
        signal.signal(signal.SIGTERM, before)  # JAX has put its own in this place
    from stair_jax.run import pipeline  # flags and settings are checked before this is imported

    agree = (lambda names: True) if options.yes else _ask
    anew = pipeline.Anew(options.redo, options.lengthen, agree)
    models = pipeline.check(config, workdir, anew)
    named = config.runtime.compilation_cache
    if folder := workdir / ".jax_cache" if named is None else named:
        use_compilation_cache(folder)  # makes the folder: not before all is checked
    pipeline.run(config, workdir, anew, models)
    if session.watchdog is not None:
        collectives.barrier("the end of the run", collectives.PATIENCE)
        session.watchdog.leave(0)
    return 0


def _ask(names: Sequence[str]) -> bool:
    """Asks whether the folders of stages may be deleted."""
    question = f"delete and make anew: {', '.join(names)}"
    if not sys.stdin.isatty():
        raise UserError(f"to {question}, add --yes")
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
