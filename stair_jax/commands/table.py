"""A table over several finished runs and their seeds, with intervals and differences."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stair_jax import storage
from stair_jax.commands.flags import Arguments, listed, make_parser, read_arguments
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
    add(
        "--into",
        "FILE",
        "a Markdown file with marks <!-- table: NAME -->; without RUN, its blocks are made anew by "
        "the commands in them",
        default="",
    )
    add("--block", "NAME", "of the marks; default without RUN: all", default="")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing, and say whether the blocks of --into are what their commands give; "
        "exit status 1: they are not",
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Writes, prints or checks tables; returns the exit status."""
    options = arguments.options
    arguments.refuse_overrides()
    if options.check and not options.into:
        raise UserError("--check is about the blocks of a file: name it with --into=FILE.md")
    if options.into:
        return _of_blocks(options)
    if not options.runs or options.block:
        what = "--into=FILE.md with --block" if options.block else "the folders of runs"
        raise UserError(f"name {what}: stair-jax table runs/a runs/b")
    if not options.out:
        print(make_markdown(_settings(options)), end="")
    elif options.out.endswith(".md"):
        storage.write_text(options.out, make_markdown(_settings(options)))
    elif options.details:
        raise UserError("--details is Markdown alone: name a file, such as --out=details.md")
    else:
        write_tables(Path(options.out), "table", _settings(options))
    return 0


def _of_blocks(options: argparse.Namespace) -> int:
    """Makes or checks blocks of a document; returns the exit status."""
    if options.out:
        raise UserError("--out and --into are two calls: leave one of them out")
    if options.runs and not options.block:
        raise UserError("--into needs the name of the block, as --block=NAME")
    with storage.reading(options.into):
        text = before = Path(options.into).read_text()
    status = 0
    for name in [options.block] if options.block else blocks.block_names(text):
        body = blocks.read_block(text, name, options.into)
        words = [] if options.runs else blocks.command_of(body)
        where = f"{options.into}: the table {name}"
        if not options.runs and not words:
            _say(f"{where} has no command yet")
            status |= blocks.has_table(body)
            continue
        try:
            made = make_body(words) if words else _made(options)
        except UserError as error:
            if options.runs:
                raise
            _say(f"{where} cannot be made: {error}")
            status |= blocks.has_table(body)
            continue
        if options.check:
            status |= made != body
            _say(f"{where} is {_verdict(body, made)}")
        else:
            text = blocks.replace_block(text, name, made, options.into)
    if text != before:
        storage.write_text(options.into, text)
    return int(status)


def _verdict(body: str, made: str) -> str:
    """Whether a block is as it should be, in words."""
    if body == made:
        return "what the answers give"
    old, new = body.strip().splitlines(), made.strip().splitlines()
    lines = zip([*old, ""], [*new, ""], strict=False)
    one, other = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
    return f"not what the answers give: {one!r} should be {other!r}"


def _made(options: argparse.Namespace) -> str:
    """What a command puts into its block."""
    return blocks.make_block(make_markdown(_settings(options)), _command(options))


def make_body(words: Sequence[str]) -> str:
    """What a command puts into its block.

    Args:
      words: of the command, `stair-jax table` first.

    Raises:
      UserError: the flags are wrong, or there are no such answers.
    """
    return _made(read_arguments(make_parser("table", SUMMARY, add_flags), words[2:]).options)


def _settings(options: argparse.Namespace) -> TableSettings:
    return TableSettings(
        options.runs,
        options.stage,
        listed(options.rows),
        listed(options.columns),
        options.against,
        options.details,
    )


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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
