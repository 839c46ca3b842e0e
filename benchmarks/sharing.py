"""`--share-prefixes` of benchmarks: one engine with and without shared prefixes, in turns."""

import argparse
import dataclasses

from stair_jax.decoding.engine import Engine
from stair_jax.errors import UserError


def add_sharing_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that `shared_sizes` reads."""
    parser.add_argument(
        "--share-prefixes",
        default="",
        help="values of runtime.share_prefixes, comma-separated, compared with the first",
    )


def shared_sizes(flags: argparse.Namespace) -> list[int]:
    """The values of `--share-prefixes`; only 0 without it.

    Raises:
        UserError: one is no number.
    """
    try:
        return [int(size) for size in flags.share_prefixes.split(",") if size] or [0]
    except ValueError:
        raise UserError(f"--share-prefixes={flags.share_prefixes}: such as 0,4") from None


def set_sharing(engine: Engine, least: int) -> None:
    """Has an idle engine share prefixes as one made with that `share_prefixes`, in the same cache.

    Raises:
        UserError: it cannot.
    """
    sizes = dataclasses.replace(engine.device.engine_config, share_prefixes=least)
    sizes.check_sharing()
    engine.device.engine_config = engine._engine_config = sizes
