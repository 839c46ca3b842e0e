"""The command line: runs one soak test, or lists them.

    python -m soak                            # one line each
    python -m soak NAME [--size N] [--seed S]

Exit status: 0 without a failure, 1 with one, 2 for a wrong command line.
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
    """A soak test in the list: default size, unit of the size, and what it checks."""

    size: int
    unit: str
    checks: str


SOAKS = {
    "kills": Soak(8, "kills", "a run killed at random moments ends like an undisturbed one"),
    "processes": Soak(6, "kills", "when one of two processes is killed, the other exits cleanly"),
    "text": Soak(60_000, "texts", "fuzzed text gives no control token and crashes no parser"),
    "checkpoints": Soak(1_000, "folders", "a hostile checkpoint is refused with a one-line error"),
    "configs": Soak(3_000, "commands", "a fuzzed command line is refused with a one-line error"),
    "growth": Soak(2_000, "trees", "many trees in one process leak nothing"),
    "endpoints": Soak(100, "kills", "a process that asks an endpoint is killed, and pays once"),
    "batches": Soak(100, "kills", "a process that asks in batches is killed, and pays once"),
    "synthesis": Soak(100, "kills", "a stage with a teacher is killed, and pays once"),
    "evaluations": Soak(50, "kills", "an evaluation that is killed asks nothing twice"),
    "serving": Soak(
        100_000, "requests", "no fuzzed request gets a 500, and clients that leave free it all"
    ),
    "workers": Soak(100, "workers", "no tree is lost when workers of a search are killed"),
    "prompts": Soak(100_000, "prompts", "many prompts are read and queued in linear time"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="soak.sh", description="Runs a soak test, or lists them.", allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", help="of the soak test; without it they are listed")
    parser.add_argument("--size", type=int, help="how much to try (the list shows the default)")
    parser.add_argument("--seed", type=int, default=0, help="of random choices (default: 0)")
    flags = parser.parse_args(arguments)
    if flags.name is None:
        for name, soak in SOAKS.items():
            print(f"{name:12} {soak.checks} (--size {soak.size}: {soak.unit})")
        return 0
    if flags.name not in SOAKS:
        parser.error(f"there is no soak test {flags.name!r}: {did_you_mean(flags.name, SOAKS)}")
    size = SOAKS[flags.name].size if flags.size is None else flags.size
    if size < 1 or flags.seed < 0:
        parser.error("--size must be at least 1, and --seed at least 0")
    return 1 if _run(flags.name, size, flags.seed).failures else 0


def _run(name: str, size: int, seed: int) -> Result:
    """Runs a soak test in a temporary folder, which is kept after a failure."""
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
