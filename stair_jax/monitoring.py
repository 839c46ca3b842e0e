"""What a run says of itself: lines of progress on stderr, metrics on the disk.

Weights & Biases gets the metrics too where the user has it and `WANDB_PROJECT` names a project;
its other variables (WANDB_MODE=offline, ...) are heeded as ever.
"""

import importlib
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.parallel import distributed

METRICS_FILE = "metrics.jsonl"
SPEED_FILE = "speed.jsonl"
_WANDB_FILE = "wandb.json"  # the id of the run there, to go on with it
_INTERVAL = 5.0  # seconds between two lines of one progress


def say(text: str) -> None:
    """One line for whoever watches the run; goes to stderr of the first process."""
    if distributed.is_main():
        print(text, file=sys.stderr, flush=True)


class Metrics:
    """Scalars by step, as JSON lines and TensorBoard events in a folder, and in W&B if asked for.

    What the clock decides goes into `speed.jsonl`, all else into `metrics.jsonl`, which is the same
    for the same run, however often it was stopped.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None, silent: bool = False):
        """Opens the metrics of a stage, going on behind what is there.

        Args:
          folder: where the files go.
          resume_step: lines of later steps are dropped, as they will be written again; all are
            kept when it is None. A start from nothing in a used folder passes -1.
          silent: write nothing, as in all processes of a run but the first.

        Raises:
          UserError: a file cannot be written, or W&B is asked for and cannot be used.
        """
        self._silent = silent
        self._files: dict[str, TextIO] = {}
        self._events: Any = None
        self._wandb: Any = None
        if silent:
            return
        self._folder = storage.make_folder(folder)
        self._resume_step = resume_step
        self._open(METRICS_FILE)
        if (self._folder / SPEED_FILE).exists():
            self._open(SPEED_FILE)
        if os.environ.get("WANDB_PROJECT"):
            self._wandb = _start_wandb(self._folder, is_new=resume_step == -1)

    def write(
        self, step: int, values: Mapping[str, Any], clock: Mapping[str, float] | None = None
    ) -> None:
        """Adds a line {"step": step, name: value, ...} to each file that has a value.

        Args:
          step: of these values.
          values: scalars.
          clock: scalars of which a run done again has others: seconds, speeds.
        """
        if self._silent:
            return
        numbers = self._line(METRICS_FILE, step, values)
        if clock:
            numbers |= self._line(SPEED_FILE, step, clock)
        events = self._tensorboard()
        for name, value in numbers.items():
            if math.isfinite(value):
                events.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Flushes and closes all that is open."""
        for file in self._files.values():
            file.close()
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, name: str) -> TextIO:
        """A file of JSON lines, without the lines that will be written again."""
        path = self._folder / name
        storage.write_text(path, "".join(_whole_lines(path, self._resume_step)))
        with storage.writing(path):
            self._files[name] = open(path, "a", encoding="utf-8")  # noqa: SIM115
        return self._files[name]

    def _line(self, name: str, step: int, values: Mapping[str, Any]) -> dict[str, float]:
        numbers = {name: float(value) for name, value in values.items()}
        line = json.dumps(storage.plain({"step": int(step), **numbers}), allow_nan=False)
        file = self._files.get(name) or self._open(name)
        with storage.writing(self._folder / name):
            file.write(line + "\n")
            file.flush()
        return numbers

    def _tensorboard(self) -> Any:
        if self._events is None:
            from tensorboardX import SummaryWriter  # takes a while: only when something is written

            purge_step = None if self._resume_step is None else self._resume_step + 1
            with storage.writing(self._folder):
                self._events = SummaryWriter(str(self._folder), purge_step=purge_step)
        return self._events


def _start_wandb(folder: Path, is_new: bool) -> Any:
    """The run at Weights & Biases of a stage: a new one, or that of before."""
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            "WANDB_PROJECT is set, but wandb is not there: pip install wandb, or unset it"
        ) from error
    path = folder / _WANDB_FILE
    if is_new or not path.exists():
        storage.write_json(path, {"id": uuid.uuid4().hex[:12]})
    try:
        return wandb.init(
            project=os.environ["WANDB_PROJECT"],
            dir=str(folder.parent),  # a stage's own files are counted when it is finished
            id=storage.read_json(path)["id"],
            name=f"{folder.parent.name}/{folder.name}",
            resume="allow",
        )
    except Exception as error:
        raise UserError(
            f"Weights & Biases cannot be used: {error}: see `wandb login`, set "
            "WANDB_MODE=offline, or unset WANDB_PROJECT"
        ) from error


def _whole_lines(path: Path, resume_step: int | None) -> list[str]:
    """The lines up to `resume_step`, without a torn last one."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if line.endswith("\n") and (resume_step is None or step <= resume_step):
            lines.append(line)
    return lines


class Progress:
    """Lines on stderr, a few seconds apart: how much is done, how fast, how long it will take."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0, silent: bool = False):
        """Starts the clock.

        Args:
          name: what is going on, e.g. the name of the stage.
          total: how many units there are.
          unit: their name, in the plural.
          done: how many were done before (a resumed stage); the rate leaves them out.
          silent: say nothing, as in all processes of a run but the first.
        """
        self._silent = silent
        self._name, self._total, self._unit = name, total, unit
        self._start_done = self._done = done
        self._start = self._last_line = time.monotonic()
        self._shown: Mapping[str, Any] = {}
        if done and not silent:
            say(f"{name}: goes on at {done} of {total} {unit}")

    def update(self, done: int, **shown: Any) -> None:
        """Says that `done` units are finished in all, with values to show beside."""
        self._done = done
        self._shown = shown or self._shown
        now = time.monotonic()
        if now - self._last_line >= _INTERVAL and not self._silent:
            self._last_line = now
            say(self._line(now))

    def close(self) -> None:
        """Prints the totals."""
        if self._silent:
            return
        seconds = time.monotonic() - self._start
        count = self._done - self._start_done
        rate = f", {_rate(count / seconds, self._unit)}" if count and seconds > 0 else ""
        say(
            f"{self._name}: {self._done} of {self._total} {self._unit} "
            f"in {duration(seconds)}{rate}{_values(self._shown)}"
        )

    def _line(self, now: float) -> str:
        count, seconds = self._done - self._start_done, now - self._start
        head = f"{self._name}: {self._done} of {self._total} {self._unit}"
        if not count:
            return f"{head}, {duration(seconds)} so far{_values(self._shown)}"
        left = max(0, self._total - self._done) * seconds / count
        rate = _rate(count / seconds, self._unit)
        return f"{head}, {rate}, {duration(left)} left{_values(self._shown)}"


def duration(seconds: float) -> str:
    """`seconds` for a reader: "4.2 s", "3 min 07 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _rate(rate: float, unit: str) -> str:
    if rate >= 1:
        return f"{rate:.3g} {unit}/s" if rate < 1000 else f"{rate:,.0f} {unit}/s"
    return f"{1 / rate:.3g} s each"


def _values(shown: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    ]
    return f" ({', '.join(parts)})" if parts else ""
