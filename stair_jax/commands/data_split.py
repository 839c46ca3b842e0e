"""`stair-jax data split`: prompts shared out into SFT and the iterations of the search."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax.addresses import require_local
from stair_jax.commands.session import Session
from stair_jax.errors import UserError

SHARED = ("files", "out", "seed", "against")  # flags that other actions have too


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of `stair-jax data split` alone."""
    parser.add_argument("--sft", metavar="N", type=int, default=0, help="prompts for SFT")
    parser.add_argument(
        "--iterations", metavar="K", type=int, default=0, help="files of prompts for the search"
    )
    parser.add_argument(
        "--per-iteration", metavar="N", type=int, default=0, help="prompts of each of them"
    )
    parser.add_argument(
        "--jailbreaks",
        metavar="FILE",
        action="append",
        default=[],
        help="jailbreaks, which are prompts of safety; may be repeated",
    )
    parser.add_argument(
        "--jailbreaks-per-iteration",
        metavar="LIST",
        default="",
        help="how many of the prompts of each iteration are jailbreaks, e.g. 0,1000,2000",
    )
    parser.add_argument(
        "--kinds",
        metavar="LIST",
        default="",
        help="SOURCE=safety,... of rows that do not say their kind; * is any other source",
    )
    parser.add_argument(
        "--drop-near",
        action="store_true",
        help="leave out prompts that nearly repeat another one of the split, but for jailbreaks",
    )


def execute(options: argparse.Namespace, session: Session) -> int:
    """Splits, and prints what each file has; returns the exit status."""
    if not options.files or not options.out:
        raise UserError(
            "say what to split and where to: stair-jax data split FILE --out=DIR --sft=N "
            "--iterations=K --per-iteration=N"
        )
    for path in (*options.files, *options.jailbreaks, *options.against):
        require_local(path, "a file")
    from stair_jax.data.built_folder import check_folder
    from stair_jax.data.held_out_files import HeldOutFiles, read_held_out
    from stair_jax.data.splits import MADE, Sizes, Split, make_split

    counts = _numbers(options.jailbreaks_per_iteration)
    sizes = Sizes(options.sft, options.iterations, options.per_iteration, counts)
    if bool(options.jailbreaks) != any(counts):
        raise UserError("set --jailbreaks and --jailbreaks-per-iteration, or none of them")
    split = Split(
        tuple(options.files),
        tuple(options.jailbreaks),
        sizes,
        read_kinds(options.kinds),
        options.drop_near,
        options.seed,
    )
    out = Path(options.out).expanduser()
    check_folder(out, MADE)
    session.on_interrupt = f"{out} is not complete"
    own = (*split.sources, *split.jailbreaks)
    held_out = read_held_out(options.against, own) if options.against else HeldOutFiles()
    print(_format(make_split(split, held_out, out), out))
    return 0


def read_kinds(text: str) -> dict[str, str]:
    """Kinds by source, of a list SOURCE=KIND,...

    Raises:
      UserError: the text is none.
    """
    found = {}
    for word in filter(None, text.split(",")):
        name, _, kind = word.rpartition("=")
        if not name.strip() or kind.strip() not in ("safety", "helpfulness"):
            raise UserError(f"--kinds has {word!r}: write SOURCE=safety or SOURCE=helpfulness")
        found[name.strip()] = kind.strip()
    return found


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() for word in words):
        raise UserError(
            f"--jailbreaks-per-iteration={text}: write whole numbers, as in 0,1000,2000"
        )
    return tuple(map(int, words))


def _format(record: Mapping[str, Any], out: Path) -> str:
    """The rows of each file by kind, and why prompts were left out."""
    width = max(map(len, record["rows"]))
    lines = [
        f"{name:<{width}}  " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        for name, kinds in record["rows"].items()
    ]
    for part, counts in record["counts"].items():
        lines += [f"{part}: {count} {what}" for what, count in counts.items()]
    if not record["held_out"]:
        lines.append("nothing was held out: name evaluation files with --against")
    lines.append(f"sources, rules and counts: {out}/README.md and data.json")
    return "\n".join(lines)
