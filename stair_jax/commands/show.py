"""Shows the state of a working folder: its stages, which are done or under way, and sizes.

Behind a stage of preference pairs stand its pairs at other thresholds, from its `report.json`.
"""

import argparse
from pathlib import Path

from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.run.overview import format_overview
from stair_jax.search.pair_report import read_report

SUMMARY = "Shows the state of a working folder: stages done and under way, and their sizes."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax show`."""
    parser.add_argument("folder", nargs="?", metavar="WORKDIR", help="folder of a run")
    parser.add_argument("--workdir", metavar="DIR", help="the same, as a flag")


def execute(arguments: Arguments, session: Session) -> int:
    """Prints the state; returns the exit status."""
    arguments.refuse_overrides()
    folder = arguments.options.folder or arguments.options.workdir
    if not folder:
        raise UserError("name the folder of a run: stair-jax show runs/a")
    print(format_overview(Path(folder), {"preferences": read_report}))
    return 0
