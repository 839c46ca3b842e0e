"""Compiles every step of a run for devices that need not be there, and says whether it fits."""

import argparse
from pathlib import Path

from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.commands.settings_flags import add_settings_flags, read_settings
from stair_jax.planning.rates import Amounts
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

SUMMARY = "Compiles every step of a run for TPUs, GPUs or this machine; says whether it fits."
DOES_NOT_FIT = 3


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax plan`."""
    parser.add_argument("--config", metavar="FILE", help="config file, or a recipe by its name")
    parser.add_argument("--workdir", metavar="DIR", help="of the run; a plan has no use for it")
    parser.add_argument(
        "--topology",
        "--plan",
        nargs="?",
        default="local",
        const="",
        metavar="NAME",
        help="v5p:2x2x1, v5e:4x4 and other slices, h100:8 and other GPUs, or local (the default)",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="change what does not fit, as little as possible, and say how",
    )
    parser.add_argument("--json", metavar="FILE", help="write all of it to this file too")
    add_settings_flags(parser, Amounts)


def execute(arguments: Arguments, session: Session) -> int:
    """Prints the plan; returns the exit status."""
    config = read_config(load_config(arguments.options.config), STAGES, arguments.overrides)
    from stair_jax.run.planner import plan

    options = arguments.options
    amounts = read_settings(options, Amounts)
    file = Path(options.json) if options.json else None
    fits = plan(config, options.topology, options.fit, amounts, file)
    return 0 if fits else DOES_NOT_FIT
