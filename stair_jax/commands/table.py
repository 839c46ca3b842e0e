"""A table over several finished runs and their seeds, with intervals and differences."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stair_jax import storage
from stair_jax.commands.flags import Arguments, make_parser, read_arguments
from stair_jax.commands.running import listed
from stair_jax.commands.seed_tables import TableSettings, make_markdown, write_tables
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.evaluation import blocks

SUMMARY = "Makes a table over several runs and seeds, with intervals; also within a Markdown file."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax table`."""

    def add(flag: str, metavar: str, text: str, **more: str) -> None:
        parser.add_argument(flag, metavar=metavar, help=text, **more)  # type: ignore[arg-type]

    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="folder of a run, of `stair-jax evaluate`, or of a sweep; ARM=RUN says what it is a "
        "seed of, which otherwise its settings say",
    )
    add("--stage", "NAME", "of the runs; default: all that evaluate", default="")
    for name in ("rows", "columns"):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="LIST",
            help=f"names of {name}, with commas between them, * for any text, LABEL=NAME to show "
            "another name; default: all",
        )
    add("--against", "ROW", "the row that the others are compared with, by case", default="")
    add(
        "--details",
        "PATH",
        "show what a benchmark says beside its metrics instead, such as pocket.hazards",
        default="",
    )
    add("--out", "PATH", "a folder for Markdown, CSV, JSON and figures, or FILE.md", default="")
    add("--into", "FILE", "a Markdown file with marks <!-- table: NAME -->", default="")
    add("--block", "NAME", "of the marks; with --check: this block alone", default="")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing, and say whether the blocks of --into are what their commands give; "
        "exit status 1: they are not",
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Writes or prints the table; returns the exit status."""
    options = arguments.options
    if arguments.overrides:
        raise UserError(f"{arguments.overrides[0].flag}: `stair-jax table` has no config")
    if options.check:
        return _check(options)
    if not options.runs:
        raise UserError("name the folders of runs: stair-jax table runs/a runs/b")
    if bool(options.into) != bool(options.block):
        raise UserError("--into=FILE.md and --block=NAME go together: give both")
    is_folder = bool(options.out) and not options.out.endswith(".md")
    if is_folder and (options.details or options.into):
        raise UserError("--out=DIR goes with neither --details nor --into: name a FILE.md")
    if is_folder:
        write_tables(Path(options.out), "table", _settings(options))
    elif options.into:
        document = _read(options.into)
        blocks.read_block(document, options.block, options.into)  # before the work
        made = _made(options)
        text = blocks.replace_block(document, options.block, made, options.into)
        storage.write_text(options.into, text)
    elif options.out:
        storage.write_text(options.out, make_markdown(_settings(options)))
    else:
        print(make_markdown(_settings(options)), end="")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Compares the blocks of a file with what their commands give now."""
    if not options.into:
        raise UserError("--check is about the blocks of a file: name it with --into=FILE.md")
    text = _read(options.into)
    names = [options.block] if options.block else blocks.block_names(text)
    status = 0
    for name in names:
        body = blocks.read_block(text, name, options.into)
        words = [] if options.runs else blocks.command_of(body)
        where = f"{options.into}: the table {name}"
        if not options.runs and not words:
            _say(f"{where} is not made yet")
            continue
        made = _made(_options(words) if words else options)
        if made == body:
            _say(f"{where} is what the answers give")
        else:
            status = 1
            _say(f"{where} is not what the answers give: {_first_difference(body, made)}")
    return status


def _made(options: argparse.Namespace) -> str:
    """What a command puts into its block."""
    return blocks.make_block(make_markdown(_settings(options)), _command(options))


def _options(words: Sequence[str]) -> argparse.Namespace:
    """The flags of the command in a block."""
    return read_arguments(make_parser("table", SUMMARY, add_flags), words[2:]).options


def _settings(options: argparse.Namespace) -> TableSettings:
    return TableSettings(
        options.runs,
        options.stage,
        listed(options.rows),
        listed(options.columns),
        options.against,
        options.details,
    )


def _read(path: str) -> str:
    with storage.reading(path):
        return Path(path).read_text()


def _command(options: argparse.Namespace) -> list[str]:
    """The command that makes a block."""
    flags = {
        "stage": options.stage,
        "rows": ",".join(listed(options.rows)),
        "columns": ",".join(listed(options.columns)),
        "against": options.against,
        "details": options.details,
        "into": options.into,
        "block": options.block,
    }
    given = [f"--{name}={value}" for name, value in flags.items() if value]
    return ["stair-jax", "table", *options.runs, *given]


def _first_difference(before: str, now: str) -> str:
    """The first line that differs, of both."""
    old, new = before.strip().splitlines(), now.strip().splitlines()
    for one, other in zip([*old, ""], [*new, ""], strict=False):
        if one != other:
            return f"{one!r} should be {other!r}"
    return "it has other lines at its end"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
