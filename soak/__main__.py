"""The command: runs one soak, or lists them.

    python -m soak                            # one line each
    python -m soak NAME [--size N] [--seed S]

Exit status: 0 nothing failed; 1 something did, or was interrupted; 2 a mistake in the command line.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from soak.result import Result
from stair_jax.errors import did_you_mean
from stair_jax.monitoring import duration


class Soak(NamedTuple):
    """A soak as the list shows it: its default size, the unit of that, and what must hold."""

    size: int
    unit: str
    holds: str


SOAKS = {
    "kills": Soak(8, "kills", "a run killed at random moments ends as one that was left alone"),
    "processes": Soak(3, "kills", "one of two processes is killed: the other ends in one line"),
    "text": Soak(60_000, "texts", "fuzzed text makes no control token and crashes no parser"),
    "checkpoints": Soak(1_000, "folders", "a hostile checkpoint is refused in one line"),
    "configs": Soak(3_000, "commands", "a fuzzed command line is refused in one line"),
    "growth": Soak(2_000, "trees", "many trees in one process leave nothing behind"),
    "prompts": Soak(100_000, "prompts", "many prompts are read, sorted and queued in linear time"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="soak.sh", description="A long test of something that must hold.", allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", help="of the soak; none: lists them")
    parser.add_argument("--size", type=int, help="how much is tried")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    flags = parser.parse_args(arguments)
    if flags.name is None:
        for name, soak in SOAKS.items():
            print(f"{name:12} {soak.holds} (--size {soak.size}: {soak.unit})")
        return 0
    if flags.name not in SOAKS:
        parser.error(f"there is no soak {flags.name!r}: {did_you_mean(flags.name, SOAKS)}")
    size = SOAKS[flags.name].size if flags.size is None else flags.size
    if size < 1 or flags.seed < 0:
        parser.error("--size must be at least 1, and --seed at least 0")
    return 1 if _run(flags.name, size, flags.seed).failures else 0


def _run(name: str, size: int, seed: int) -> Result:
    """Runs a soak in a folder of its own, which is kept where something failed."""
    module = importlib.import_module(f"soak.{name}")
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
    start = time.monotonic()
    result: Result = module.run(size, seed, folder)
    print(result.summary().encode(errors="backslashreplace").decode())
    if result.failures:
        print(f"{name}: files in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{name}: size {size}, seed {seed}, {duration(time.monotonic() - start)}")
    return result


if __name__ == "__main__":
    sys.exit(main())
