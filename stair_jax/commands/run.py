"""Runs the stages of a config in a working folder."""

import argparse
from pathlib import Path

from stair_jax.commands.cluster_flag import add_cluster_flag, with_cluster
from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import Arguments, listed
from stair_jax.commands.running import add_redo_flags, run_config, run_part
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.parallel.processes import cluster
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
        "--fit",
        action="store_true",
        help="change what does not fit the devices, as little as possible, and say how",
    )
    add_redo_flags(parser)
    add_cluster_flag(parser)
    parser.add_argument(
        "--only",
        metavar="STAGE,...",
        help="run these stages alone, for the driver of a cluster, which waits meanwhile",
    )
    parser.add_argument(
        "--lengthen",
        action="append",
        default=[],
        metavar="STAGE",
        help="go on with a finished training stage to the epochs of the config (keep_state)",
    )
    parser.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="WORKDIR",
        help="take over finished stages of another run, or of the cells of a sweep, where they are "
        "the same; may be repeated",
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Runs what is not finished; returns the exit status."""
    options = arguments.options
    cluster.read_flags(options)  # a mistake in them is said before those of the config
    overrides = with_cluster(arguments).overrides
    config = read_config(load_config(options.config), STAGES, overrides)
    if options.show_config:
        print(format_config(config))
        return 0
    if not options.workdir:
        raise UserError("--workdir is missing: name the folder of the run, e.g. --workdir=runs/a")
    if options.only is not None:
        if options.redo or options.lengthen or options.reuse or options.fit:
            raise UserError("--only goes with none of --redo, --lengthen, --reuse and --fit")
        run_part(config, Path(options.workdir), options, session, listed([options.only]))
        return 0
    run_config(
        config,
        Path(options.workdir),
        options,
        session,
        options.lengthen,
        options.fit,
        listed(options.reuse),
    )
    return 0
