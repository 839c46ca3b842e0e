"""One of two processes of a run is killed at random moments.

The other process then exits with status 4 and one line that gives the reason, and the same command
resumes. The finished run has the artifacts of an undisturbed one.
"""

import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soak import kills
from soak.command import Command, Started
from soak.restarts import Moment, Restarts
from soak.result import Result
from stair_jax.monitoring import Progress

_WARM = 0.4  # duration of a run with cached compilations, relative to one without
_JOINED = "[1 of "  # printed by process 0 once both processes have connected
_SEARCHES = "search1: starts"
OVERRIDES: Mapping[str, Any] = dict(kills.OVERRIDES) | {
    "stages": ("pocket:data", "model:base", "sft", "search:search1"),
    "runtime.training_mesh.data": 2,
    "sft.epochs": 0.4,  # 8 steps
    "sft.checkpoint_every": 2,
}


def run(
    size: int,
    seed: int,
    folder: Path,
    moments: Sequence[Moment] = (),
    command: Command | None = None,
    undisturbed: Path | None = None,
) -> Result:
    """Sends `size` signals to one of two processes.

    Args:
        size: number of signals.
        seed: of the random moments.
        folder: for the working folders and logs.
        moments: replace the random moments.
        command: that is run; None: a small run of the pocket world.
        undisturbed: working folder of an undisturbed run of `command`; requires `moments`. None:
            such a run comes first.
    """
    result = Result("processes")
    command = command or Command.of_config(
        "configs/pocket.py", folder / "compiled", OVERRIDES, processes=2
    )
    if undisturbed is None:
        undisturbed = folder / "undisturbed"
        seconds = command.finish(undisturbed, since=_JOINED)
        result.figures["undisturbed_run_s"] = seconds
        moments = moments or [_draw(seed + number, _WARM * seconds) for number in range(size)]
    progress = Progress("processes", len(moments), "kills")
    Restarts(command, undisturbed, folder, result).run(moments, progress)
    progress.close()
    return result


def _draw(seed: int, seconds: float) -> Moment:
    """A moment in the whole run, or in its search, which the first kind rarely reaches."""
    rng = random.Random(seed)
    process = rng.randrange(2)
    mark, share = (_JOINED, 1.0) if seed % 2 == 0 else (_SEARCHES, 0.3)
    after = rng.uniform(0.0, share * seconds)

    def condition(run: Started) -> bool:
        return mark in run.output() and run.seconds_since(mark) >= after

    return Moment(signal.SIGKILL, condition, f"{after:.2f} s after {mark!r}", process, seed)
