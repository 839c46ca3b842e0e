"""`stair-jax data filter`: the rows whose prompts a judge behind an endpoint keeps."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax.addresses import require_local
from stair_jax.commands.endpoint_flags import add_endpoint_flags, endpoint_values
from stair_jax.commands.session import Session
from stair_jax.errors import UserError

SHARED = ("files", "out")  # flags that other actions have too
_REPLY_TOKENS = 1024


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of `stair-jax data filter` alone."""
    parser.add_argument("--endpoint", metavar="URL", default="", help="the address of the judge")
    parser.add_argument("--model", metavar="NAME", default="", help="of the model there")
    add_endpoint_flags(parser)
    parser.add_argument(
        "--template",
        metavar="FILE",
        default="",
        help="a text file with {prompt}, which asks for a verdict in brackets; default: ours, "
        "which asks whether the prompt is [HARMFUL] or [HARMLESS]",
    )
    parser.add_argument(
        "--keep", metavar="VERDICT", default="HARMFUL", help="of the prompts that are kept"
    )
    parser.add_argument(
        "--reply-tokens",
        metavar="N",
        type=int,
        default=_REPLY_TOKENS,
        help="of a verdict at most, with the reasoning of models that reason",
    )


def execute(options: argparse.Namespace, session: Session) -> int:
    """Filters, and prints how many rows are kept; returns the exit status."""
    if not (options.files and options.out and options.endpoint and options.model):
        raise UserError(
            "say what to filter, where to and who judges: stair-jax data filter FILE --out=DIR "
            "--endpoint=URL --model=NAME"
        )
    for path in options.files:
        require_local(path, "a file")
    from stair_jax.endpoints.settings import EndpointSettings
    from stair_jax.settings import build
    from stair_jax.storage import read_text
    from stair_jax.synthesis.prompt_filter import HARMFUL, PromptFilter, filter_prompts

    template = HARMFUL
    if options.template:
        template = read_text(Path(options.template).expanduser())
    wanted = PromptFilter(template, options.keep)
    values = endpoint_values(options, options.endpoint, options.model)
    sampling = {"max_tokens": options.reply_tokens}
    endpoint = build(EndpointSettings, values | {"sampling": sampling}, "endpoint")
    out = Path(options.out).expanduser()
    session.on_interrupt = f"the same command goes on; the replies are in {out}"
    print(_format(filter_prompts(options.files, wanted, endpoint, out), out))
    return 0


def _format(record: Mapping[str, Any], out: Path) -> str:
    """The rows of each file by verdict."""
    lines = [
        f"{out}/{name}.jsonl: " + ", ".join(f"{count} {what}" for what, count in counts.items())
        for name, counts in record["counts"].items()
    ]
    return "\n".join([*lines, f"what was asked, and of whom: {out}/data.json"])
