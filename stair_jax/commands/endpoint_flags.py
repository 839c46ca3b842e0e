"""Flags of an OpenAI-compatible endpoint: its key, and what may be spent on it."""

import argparse
from typing import Any

SPENT = ("max_requests", "budget", "input_price", "output_price")
_BATCH = 50_000  # requests of a batch, as many as OpenAI takes


def add_endpoint_flags(parser: argparse._ActionsContainer) -> None:
    """Adds them."""

    def add(flag: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(flag, metavar=metavar, help=text, **{"default": None, **more})

    add("--key-variable", "NAME", "environment variable that holds the endpoint's key", default="")
    add("--max-requests", "N", "most paid calls of an endpoint", type=int)
    add("--budget", "MONEY", "most that an endpoint may cost", type=float)
    add("--input-price", "MONEY", "of a million prompt tokens", type=float)
    add("--output-price", "MONEY", "of a million sampled tokens", type=float)
    parser.add_argument(
        "--batch", action="store_true", help="ask endpoints through their batch API, within a day"
    )


def endpoint_values(options: argparse.Namespace, url: str, model: str) -> dict[str, Any]:
    """Fields of `EndpointSettings`."""
    limits = {name: getattr(options, name) for name in SPENT}
    batch = {"batch": {"size": _BATCH}} if options.batch else {}
    return {"base_url": url, "model": model, "key_variable": options.key_variable} | limits | batch
