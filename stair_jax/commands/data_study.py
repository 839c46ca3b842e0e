"""`stair-jax data study`: the data of a study out of public sets."""

import argparse
from pathlib import Path
from typing import Any

from stair_jax.commands.session import Session
from stair_jax.errors import UserError

SHARED = ("out", "tokenizer", "seed")  # flags that other actions have too


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of `stair-jax data study` alone."""
    parser.add_argument(
        "--sources",
        metavar="DIR",
        help="local copies of the sets, one folder a set; without it, all are fetched",
    )
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="with --sources: fetch what is not there from the hub and from GitHub",
    )
    parser.add_argument(
        "--revisions",
        metavar="LIST",
        default="",
        help="SET=REVISION,... to fetch; or the data.json of an earlier build",
    )
    parser.add_argument(
        "--without", metavar="LIST", default="", help="sets to do without, e.g. for their licence"
    )
    parser.add_argument(
        "--require", metavar="LIST", default="", help="sets whose absence is an error, or all"
    )
    parser.add_argument("--small", action="store_true", help="few and short rows: a first model")
    parser.add_argument(
        "--max-tokens", metavar="N", type=int, default=0, help="of an SFT row; default 700, or 120"
    )


def execute(options: argparse.Namespace, session: Session) -> int:
    """Builds, and prints what each file has; returns the exit status."""
    if not options.out:
        raise UserError("say what to build and where: stair-jax data study --out=DIR")
    if options.max_tokens < 0:
        raise UserError("--max-tokens is negative: give the most tokens of a row")
    is_remote = options.fetch or not options.sources
    if options.revisions and not is_remote:
        raise UserError("--revisions says what to fetch, and nothing is: add --fetch")
    from stair_jax.data.built_folder import check_folder
    from stair_jax.data.study.build import Options, build_study
    from stair_jax.data.study.needs import parse_required
    from stair_jax.data.study.sources import Choice

    out = Path(options.out).expanduser()
    check_folder(out)
    choice = Choice(
        folder=Path(options.sources).expanduser() if options.sources else None,
        remote=is_remote,
        revisions=read_revisions(options.revisions),
        without=parse_required(options.without),
    )
    session.on_interrupt = f"{out} is not complete"
    record = build_study(
        Options(
            choice,
            options.small,
            Path(options.tokenizer).expanduser() if options.tokenizer else None,
            options.max_tokens,
            options.seed,
            parse_required(options.require),
        ),
        out,
    )
    print(_format(record, out))
    return 0


def read_revisions(text: str) -> dict[str, str]:
    """Revisions by the name of the set: of a list SET=REVISION,... or of a `data.json`.

    Raises:
      UserError: the text is neither, or the file is no record of a build.
    """
    if text.endswith(".json"):
        from stair_jax.storage import read_json

        record = read_json(Path(text).expanduser())
        sources = record.get("sources") if isinstance(record, dict) else None
        if not isinstance(sources, dict):
            raise UserError(f"--revisions={text} is no data.json of an earlier build")
        revisions = {name: one.get("revision") for name, one in sources.items()}
        if not any(revisions.values()):
            raise UserError(f"--revisions={text} has no revision: that build fetched nothing")
        return {name: revision for name, revision in revisions.items() if revision}
    found = {}
    for word in filter(None, text.split(",")):
        name, _, revision = word.partition("=")
        if not name.strip() or not revision.strip():
            raise UserError(f"--revisions has {word!r}: write SET=REVISION, or name a data.json")
        found[name.strip()] = revision.strip()
    return found


def _format(record: dict[str, Any], out: Path) -> str:
    """The rows of each file, and how many prompts repeated a held-out one."""
    width = max(map(len, record["rows"]))
    lines = [f"{name:<{width}}  {count:>6} rows" for name, count in record["rows"].items()]
    repeated = sum(
        count
        for counts in record["counts"].values()
        for reason, count in counts.items()
        if "repeats a prompt of" in reason
    )
    lines.append(f"{repeated} prompts left out that repeat held-out ones: {out}/left_out.jsonl")
    lines.append(f"sources, licences, rules and counts: {out}/README.md and data.json")
    return "\n".join(lines)
