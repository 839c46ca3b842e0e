"""Compiles every step of a run for devices that need not be there, and says whether it fits."""

import argparse

from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
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


def execute(arguments: Arguments, session: Session) -> int:
    """Prints the plan; returns the exit status."""
    config = read_config(load_config(arguments.options.config), STAGES, arguments.overrides)
    from stair_jax.run.planner import plan

    return 0 if plan(config, arguments.options.topology) else DOES_NOT_FIT
