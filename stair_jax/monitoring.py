"""What a run says of itself: lines of progress on stderr, metrics on the disk."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax import storage

METRICS_FILE = "metrics.jsonl"
_INTERVAL = 5.0  # seconds between two lines of one progress


def say(text: str) -> None:
    """One line for whoever watches the run; goes to stderr."""
    print(text, file=sys.stderr, flush=True)


class Metrics:
    """Scalars by step, as JSON lines in `folder/metrics.jsonl` and as TensorBoard events."""

    def __init__(self, folder: str | Path, resume_step: int | None = None):
        """Opens the metrics of a stage, going on behind what is there.

        Args:
          folder: where the two files go.
          resume_step: lines of later steps are dropped, as they will be written again; all are
            kept when it is None. A start from nothing in a used folder passes -1.
        """
        self._folder = storage.make_folder(folder)
        self._resume_step = resume_step
        self._path = self._folder / METRICS_FILE
        kept = _whole_lines(self._path, resume_step)
        storage.write_text(self._path, "".join(kept))
        with storage.writing(self._path):
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._events: Any = None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line {"step": step, name: value, ...}; values are scalars."""
        numbers = {name: float(value) for name, value in values.items()}
        line = json.dumps(storage.plain({"step": int(step), **numbers}), allow_nan=False)
        with storage.writing(self._path):
            self._file.write(line + "\n")
            self._file.flush()
        events = self._tensorboard()
        for name, value in numbers.items():
            if math.isfinite(value):
                events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _tensorboard(self) -> Any:
        if self._events is None:
            from tensorboardX import SummaryWriter  # takes a while: only when something is written

            purge_step = None if self._resume_step is None else self._resume_step + 1
            with storage.writing(self._folder):
                self._events = SummaryWriter(str(self._folder), purge_step=purge_step)
        return self._events


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

    def __init__(self, name: str, total: int, unit: str, done: int = 0):
        """Starts the clock.

        Args:
          name: what is going on, e.g. the name of the stage.
          total: how many units there are.
          unit: their name, in the plural.
          done: how many were done before (a resumed stage); the rate leaves them out.
        """
        self._name, self._total, self._unit = name, total, unit
        self._start_done = self._done = done
        self._start = self._last_line = time.monotonic()
        self._shown: Mapping[str, Any] = {}
        if done:
            say(f"{name}: goes on at {done} of {total} {unit}")

    def update(self, done: int, **shown: Any) -> None:
        """Says that `done` units are finished in all, with values to show beside."""
        self._done = done
        self._shown = shown or self._shown
        now = time.monotonic()
        if now - self._last_line >= _INTERVAL:
            self._last_line = now
            say(self._line(now))

    def close(self) -> None:
        """Prints the totals."""
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
