"""A run of the pocket world is killed at random moments and restarted until it is finished.

Trees, pairs, weights and tables then equal those of an undisturbed run byte for byte, no lock is
left, and no tree was lost. Moments are uniform over the duration of a run; half of the signals are
SIGKILL, the others SIGTERM and SIGINT.
"""

import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soak.command import Command
from soak.restarts import Moment, Restarts
from soak.result import Result
from stair_jax.monitoring import Progress

NUM_TREES = 6
OVERRIDES: Mapping[str, Any] = {
    "stages": (
        "pocket:data",
        "model:base",
        "sft",
        "search:search1",
        "preferences:pairs1",
        "dpo:iter1",
        "evaluate",
    ),
    "runtime.slots": 16,
    "runtime.prefill_rows": 4,
    "runtime.trees_in_flight": 2,  # so that trees finish one after the other
    "pocket.num_sft": 160,
    "pocket.num_replay": 0,
    "pocket.num_search": NUM_TREES,
    "pocket.iterations": 1,
    "pocket.per_family": 1,
    "sft.reader": "datasets",
    "sft.epochs": 1.2,  # 24 steps: enough for answers with tags, few enough for some without
    "sft.batch_size": 8,
    "sft.learning_rate": 1e-3,
    "sft.max_length": 128,
    "sft.checkpoint_every": 4,
    "search.num_iterations": 8,
    "search.max_answer_tokens": 80,
    "search.judge.mode": "expected",  # a model of so few steps writes no conclusion
    "search.judge.probe": "",  # nor does it judge well
    "preferences.v0": 0.0,  # any difference makes a pair
    "preferences.v1": -3.0,
    "preferences.prm.max_pairs_per_tree": 2,
    "preferences.prm.v0": 0.0,
    "dpo.batch_size": 2,
    "dpo.learning_rate": 5e-4,
    "dpo.checkpoint_every": 3,
    "evaluate.models": ("iter1",),
    "evaluate.methods": (),
    "evaluate.prompted": "",
    "evaluate.searched": "iter1",
    "evaluate.prm": "",
}
_WARM = 0.4  # duration of a run with cached compilations, relative to one without
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)


def run(
    size: int,
    seed: int,
    folder: Path,
    moments: Sequence[Moment] = (),
    overrides: Mapping[str, Any] = OVERRIDES,
    copied: Sequence[str] = (),
) -> Result:
    """Sends `size` signals to runs.

    Args:
        size: number of signals.
        seed: of the random moments.
        folder: for the working folders and logs.
        moments: replace the random moments.
        overrides: fields of configs/pocket.py.
        copied: stages that are copied from the undisturbed run instead of run again.
    """
    result = Result("kills")
    command = Command.of_config("configs/pocket.py", folder / "compiled", overrides)
    seconds = command.finish(folder / "undisturbed")
    moments = moments or [_draw(seed + number, _WARM * seconds) for number in range(size)]
    result.figures["undisturbed_run_s"] = seconds
    progress = Progress("kills", len(moments), "kills")
    Restarts(command, folder / "undisturbed", folder, result, copied).run(moments, progress)
    progress.close()
    return result


def _draw(seed: int, seconds: float) -> Moment:
    rng = random.Random(seed)
    number = _SIGNALS[seed % len(_SIGNALS)]
    after = rng.uniform(0.0, seconds)
    return Moment(
        number, lambda run: run.seconds_since() >= after, f"after {after:.2f} s", seed=seed
    )
