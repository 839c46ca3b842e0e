"""`stair-jax data export`: rows as the files that other trainers read."""

import argparse
import re
from pathlib import Path
from typing import Any

from stair_jax.commands.session import Session
from stair_jax.errors import UserError, did_you_mean

SHARED = ("files", "out")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of `stair-jax data export` alone."""
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="messages, trl-sft, trl-dpo, trl-prm, llama-factory or openrlhf",
    )
    parser.add_argument(
        "--rows", choices=("sft", "dpo", "prm"), help="which rows, where there are several"
    )
    parser.add_argument(
        "--licence", metavar="ID", default="", help="of the rows, as the hub writes it: apache-2.0"
    )
    parser.add_argument(
        "--push", metavar="OWNER/NAME", default="", help="also to this data set of the hub, private"
    )
    parser.add_argument(
        "--public", action="store_true", help="with --push: a data set that is made is public"
    )


def execute(options: argparse.Namespace, session: Session) -> int:
    """Writes the files, and prints what they have; returns the exit status."""
    from stair_jax.data.export.folder import Export, check_folder, export_files, write_export
    from stair_jax.data.export.formats import FORMATS
    from stair_jax.data.export.push import check_push, push

    if len(options.files) != 1 or not options.format or not options.out:
        raise UserError(
            "say what to export, as what and where: stair-jax data export RUN_OR_FILE "
            f"--format=NAME --out=DIR; formats are {', '.join(FORMATS)}"
        )
    if options.format not in FORMATS:
        raise UserError(f"no format {options.format!r}: {did_you_mean(options.format, FORMATS)}")
    if options.licence and not _LICENCE.fullmatch(options.licence):
        raise UserError(f"--licence={options.licence} is no identifier such as apache-2.0")
    if options.public and not options.push:
        raise UserError("--public says who may see what --push makes: name --push=OWNER/NAME too")
    if options.push:
        check_push(options.push)
    out = Path(options.out).expanduser()
    check_folder(out)
    session.on_interrupt = f"{out} is not complete"
    asked = Export(options.files[0], options.format, options.rows, licence=options.licence)
    print(_format(write_export(asked, out), out))
    if options.push:
        print(f"pushed: {push(out, export_files(out), options.push, options.public)}")
    return 0


def _format(record: dict[str, Any], out: Path) -> str:
    lines = []
    for file, one in record["files"].items():
        lines.append(f"{out}/{file}: {one['rows']} rows ({', '.join(one['columns'])})")
        lines += [f"  left out: {count} ({reason})" for reason, count in one["left_out"].items()]
    return "\n".join([*lines, f"what they are and how they are loaded: {out}/README.md"])
