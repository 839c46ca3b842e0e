"""Writes a page for readers: answers of several models side by side, and search trees."""

import argparse
from pathlib import Path

from stair_jax import storage
from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.commands.settings_flags import add_settings_flags, read_settings
from stair_jax.errors import UserError
from stair_jax.reports.cases_page import cases_page, check_out
from stair_jax.reports.choosing import CasesSettings
from stair_jax.reports.records import read_run

SUMMARY = "Writes a page of cases: answers of several models side by side, and search trees."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax cases`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or of a stage")
    parser.add_argument("--out", metavar="FILE", help="the page, Markdown")
    parser.add_argument(
        "--harmless",
        action="store_true",
        help="show texts of prompts alone that are known to be harmless",
    )
    add_settings_flags(parser, CasesSettings)


def execute(arguments: Arguments, session: Session) -> int:
    """Writes the page; returns the exit status."""
    arguments.refuse_overrides()
    options = arguments.options
    if not options.runs or not options.out:
        raise UserError("name runs and a page: stair-jax cases runs/a runs/b --out=cases.md")
    out = Path(options.out)
    check_out(out)
    settings = read_settings(options, CasesSettings)
    runs = [read_run(Path(path)) for path in dict.fromkeys(options.runs)]
    storage.write_text(out, cases_page(runs, settings, options.harmless))
    print(f"{out} is written")
    return 0
