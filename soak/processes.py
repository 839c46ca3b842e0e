"""One of two processes of a run is killed at a random moment: the other ends, and says why.

It ends at once, in one line and with exit status 4; the same command goes on, and the run that was
killed again and again ends with what one holds that was left alone.
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

_WARM = 0.5  # share of its time that a run takes whose programs are compiled already
_JOINED = "[1 of "  # process 0 says so once both are there
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
    calm: Path | None = None,
) -> Result:
    """Stops one of two processes `size` times.

    Args:
        size: number of signals.
        seed: of their moments.
        folder: for the runs.
        moments: in place of random ones.
        command: of the runs; None: the pocket world.
        calm: a run of the command that was left alone, for given moments; None: makes one.
    """
    result = Result("processes")
    command = command or Command.of_config(
        "configs/pocket.py", folder / "compiled", OVERRIDES, processes=2
    )
    if calm is None:
        calm = folder / "calm"
        seconds = command.finish(calm, since=_JOINED)
        result.figures["left_alone_s"] = seconds
        moments = moments or [_draw(seed + number, _WARM * seconds) for number in range(size)]
    progress = Progress("processes", len(moments), "kills")
    Restarts(command, calm, folder, result).run(moments, progress)
    progress.close()
    return result


def _draw(seed: int, seconds: float) -> Moment:
    rng = random.Random(seed)
    process = rng.randrange(2)
    after = rng.uniform(0.0, seconds)

    def is_time(run: Started) -> bool:
        return _JOINED in run.said() and run.seconds_since(_JOINED) >= after

    words = f"{after:.2f} s after both were there"
    return Moment(signal.SIGKILL, is_time, words, process, seed)
