"""A table over several finished runs and their seeds, with intervals and differences."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stair_jax import storage
from stair_jax.commands.flags import Arguments, make_parser, read_arguments
from stair_jax.commands.running import listed
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.evaluation import blocks

if TYPE_CHECKING:
    from stair_jax.commands.seed_tables import TableSettings

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
    from stair_jax.commands import seed_tables
    from stair_jax.evaluation.writers.seed_lines import seed_markdown

    settings = _settings(options)
    answers = seed_tables.read_answers(settings)
    table = seed_tables.make_table(settings, answers)
    text = seed_markdown(table)
    if options.into:
        path = Path(options.into)
        with storage.reading(path):
            before = path.read_text()
        body = blocks.make_block(text, _command(options))
        storage.write_text(path, blocks.replace_block(before, options.block, body, options.into))
    if options.out.endswith(".md"):
        storage.write_text(options.out, text)
    elif options.out:
        seed_tables.write_tables(storage.make_folder(options.out), "table", table, answers)
    if not options.into and not options.out:
        print(text, end="")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Compares the blocks of a file with what their commands give now."""
    if not options.into:
        raise UserError("--check is about the blocks of a file: name it with --into=FILE.md")
    with storage.reading(options.into):
        text = Path(options.into).read_text()
    names = [options.block] if options.block else blocks.block_names(text)
    status = 0
    for name in names:
        body = blocks.read_block(text, name, options.into)
        words = _command(options) if options.runs else blocks.command_of(body)
        where = f"{options.into}: the table {name}"
        if not words:
            _say(f"{where} is not made yet")
            continue
        made = _made(words)
        if made == body:
            _say(f"{where} is what the answers give")
        else:
            status = 1
            _say(f"{where} is not what the answers give: {_first_difference(body, made)}")
    return status


def _made(words: Sequence[str]) -> str:
    """What the command of a block puts there."""
    from stair_jax.commands import seed_tables
    from stair_jax.evaluation.writers.seed_lines import seed_markdown

    options = read_arguments(make_parser("table", SUMMARY, add_flags), words[2:]).options
    settings = _settings(options)
    table = seed_tables.make_table(settings, seed_tables.read_answers(settings))
    return blocks.make_block(seed_markdown(table), _command(options))


def _settings(options: argparse.Namespace) -> "TableSettings":
    from stair_jax.commands.seed_tables import TableSettings

    rows, columns = listed(options.rows), listed(options.columns)
    return TableSettings(options.runs, options.stage, rows, columns, options.against)


def _command(options: argparse.Namespace) -> list[str]:
    """The command that makes a block."""
    flags = {
        "stage": options.stage,
        "rows": ",".join(listed(options.rows)),
        "columns": ",".join(listed(options.columns)),
        "against": options.against,
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
