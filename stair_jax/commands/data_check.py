"""`stair-jax data check`: what a file of data is, and what stages would take of it."""

import argparse
import json
from pathlib import Path

from stair_jax.addresses import require_local
from stair_jax.commands.session import Session
from stair_jax.errors import UserError

SHARED = ("files", "tokenizer", "against")  # flags that other actions have too


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of `stair-jax data check` alone."""
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each file, in place of text"
    )


def execute(options: argparse.Namespace, session: Session) -> int:
    """Prints a report of each file; returns the exit status."""
    if not options.files:
        raise UserError("name what to check: stair-jax data check FILE")
    for path in options.against:
        require_local(path, "--against")
    from stair_jax.data.file_check import Checker
    from stair_jax.data.held_out_files import read_held_out
    from stair_jax.data.report_text import format_report
    from stair_jax.data.token_lengths import TokenCounter
    from stair_jax.storage import plain

    session.on_interrupt = "not all files are checked"
    counter = TokenCounter(Path(options.tokenizer).expanduser() if options.tokenizer else None)
    held_out = read_held_out(options.against, options.files) if options.against else None
    checker = Checker(counter, held_out)
    objections = []
    for source in options.files:
        require_local(source, "FILE")
        report = checker.check(source)
        text = json.dumps(plain(report)) if options.json else format_report(report)
        print(text, flush=True)
        if report.objection:
            objections.append(f"{source}: no stage could read it: {report.objection}")
    if objections:
        more = f"; and {len(objections) - 1} more files" if len(objections) > 1 else ""
        raise UserError(objections[0] + more)
    return 0
