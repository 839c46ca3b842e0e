"""Shows what happened in a run, or in two, in a browser of this machine, without any limit."""

import argparse
from pathlib import Path

from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.reports.html.contents import read_contents
from stair_jax.reports.html.serving import ReportServer
from stair_jax.settings_text import parse_text

SUMMARY = "Shows a run, or two side by side, in a browser: the report, with all of its trees."
_PORT = 8100
_MOST_PORT = 65535


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax view`."""
    parser.add_argument("runs", nargs="*", metavar="WORKDIR", help="folder of a run; two at most")
    parser.add_argument(
        "--port",
        metavar="VALUE",
        default=str(_PORT),
        help=f"of 127.0.0.1; 0: any that is free. Default: {_PORT}.",
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Serves the page until it is stopped; returns the exit status."""
    arguments.refuse_overrides()
    options = arguments.options
    if not options.runs:
        raise UserError("name the folder of a run: stair-jax view runs/a")
    port = parse_text(options.port, int, "--port")
    if not 0 <= port <= _MOST_PORT:
        raise UserError(f"--port={port}: a port is 0 to {_MOST_PORT}")
    contents = read_contents([Path(run) for run in options.runs])
    session.on_interrupt = "the page is not there any more"
    with ReportServer(contents, port) as server:
        say("reading the records")
        server.blocks.head()  # here, where what is wrong with them ends the command
        print(f"{server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0
