"""Writes what happened in a run, or in two, as one page of HTML that needs nothing else."""

import argparse
from pathlib import Path

from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.commands.settings_flags import add_settings_flags, read_settings
from stair_jax.errors import UserError
from stair_jax.reports.html.build import check_out, write_report
from stair_jax.reports.html.settings import ReportSettings

SUMMARY = "Writes a run, or two side by side, as one HTML file: tables, curves, trees, answers."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax report`."""
    parser.add_argument("runs", nargs="*", metavar="WORKDIR", help="folder of a run; two at most")
    parser.add_argument(
        "--out", metavar="FILE", help="the page. Default: report.html in the folder of the run."
    )
    add_settings_flags(parser, ReportSettings)


def execute(arguments: Arguments, session: Session) -> int:
    """Writes the page; returns the exit status."""
    arguments.refuse_overrides()
    options = arguments.options
    if not options.runs:
        raise UserError("name the folder of a run: stair-jax report runs/a")
    if len(options.runs) > 1 and not options.out:
        raise UserError("name the page of the two runs, such as --out=both.html")
    out = Path(options.out) if options.out else None
    if out is not None:
        check_out(out)
    settings = read_settings(options, ReportSettings)
    print(f"{write_report([Path(run) for run in options.runs], out, settings)} is written")
    return 0
