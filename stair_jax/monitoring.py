"""Metrics and text samples (JSON lines, TensorBoard, Weights & Biases), progress lines on stderr.

Weights & Biases is used if `WANDB_PROJECT` names a project; its other environment variables
(WANDB_MODE=offline, ...) work as usual.
"""

import importlib
import json
import math
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from stair_jax import storage
from stair_jax.closing import Closing
from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives
from stair_jax.samples import Sample

METRICS_FILE = "metrics.jsonl"
SPEED_FILE = "speed.jsonl"
SAMPLES_FILE = "samples.jsonl"
_WANDB_FILE = "wandb.json"  # id of the W&B run, to resume it
_INTERVAL = 5.0  # least seconds between two progress lines


def say(text: str) -> None:
    """Prints a line to stderr, on the first process of the run only."""
    if collectives.is_main():
        print(text, file=sys.stderr, flush=True)


class Metrics(Closing):
    """Writes scalars and samples by step: JSON lines and TensorBoard events, and W&B if set up.

    Values that depend on the clock go into `speed.jsonl`, all others into `metrics.jsonl`. So the
    latter has the same bytes for the same run, however often it was interrupted. Samples go
    into `samples.jsonl`.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None, silent: bool = False):
        """Opens the metrics of a stage and appends to what is there.

        Args:
          folder: of the files.
          resume_step: last step to keep: lines of later steps are dropped, as they will be written
            again. None keeps all; -1 drops all (a fresh start).
          silent: write nothing; for all processes of a run but the first.

        Raises:
          UserError: a file cannot be written, or W&B is set up but cannot be used.
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
        for name in (SPEED_FILE, SAMPLES_FILE):
            if (self._folder / name).exists():
                self._open(name)
        if os.environ.get("WANDB_PROJECT"):
            self._wandb = _start_wandb(self._folder, is_new=resume_step == -1)

    def write(
        self, step: int, values: Mapping[str, Any], clock: Mapping[str, float] | None = None
    ) -> None:
        """Writes the scalars of a step, as a line {"step": step, name: value, ...} in each file.

        Args:
          step: of these values; a step may come again with other names.
          values: scalars that are the same in a repeated run; a file gets no line of none.
          clock: scalars that depend on the clock: seconds, speeds.

        Raises:
          UserError: a file cannot be written.
        """
        if self._silent:
            return
        numbers = self._line(METRICS_FILE, step, values) if values else {}
        if clock:
            numbers |= self._line(SPEED_FILE, step, clock)
        events = self._tensorboard()
        for name, value in numbers.items():
            if math.isfinite(value):  # TensorBoard cannot plot others; the JSON lines have null
                events.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def write_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Writes samples of a step, a line each, and says them in short.

        Raises:
          UserError: a file cannot be written.
        """
        if self._silent:
            return
        counts: Counter[str] = Counter()
        for sample in samples:
            self._append(SAMPLES_FILE, _json_line({"step": int(step), **sample.to_dict()}))
            counts[sample.what] += 1
            number = counts[sample.what]  # of those that are alike
            tag = f"samples/{sample.what}" + (f"_{number}" if number > 1 else "")
            self._tensorboard().add_text(tag, sample.to_markdown(), step)
            if self._wandb is not None:
                page = importlib.import_module("wandb").Html(sample.to_html())
                self._wandb.log({tag: page}, step=step)
            say(f"{self._folder.name}: sample of step {step}, {sample.to_line()}")

    def close(self) -> None:
        """Flushes and closes all files and writers."""
        for file in self._files.values():
            file.close()
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _open(self, name: str) -> TextIO:
        """Opens a file of JSON lines for appending, after dropping the steps to be repeated."""
        path = self._folder / name
        storage.write_text(path, "".join(_whole_lines(path, self._resume_step)))
        with storage.writing(path):
            self._files[name] = open(path, "a", encoding="utf-8")  # noqa: SIM115
        return self._files[name]

    def _line(self, name: str, step: int, values: Mapping[str, Any]) -> dict[str, float]:
        numbers = {name: float(value) for name, value in values.items()}
        self._append(name, _line(step, numbers))
        return numbers

    def _append(self, name: str, line: str) -> None:
        file = self._files.get(name) or self._open(name)
        with storage.writing(self._folder / name):
            file.write(line)
            file.flush()

    def _tensorboard(self) -> Any:
        if self._events is None:
            from tensorboardX import SummaryWriter  # takes a while: only when something is written

            purge_step = None if self._resume_step is None else self._resume_step + 1
            with storage.writing(self._folder):
                self._events = SummaryWriter(str(self._folder), purge_step=purge_step)
        return self._events


def _start_wandb(folder: Path, is_new: bool) -> Any:
    """Starts the W&B run of a stage, or resumes it."""
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            "WANDB_PROJECT is set, but wandb is not installed: pip install wandb, or unset it"
        ) from error
    path = folder / _WANDB_FILE
    if is_new or not path.exists():
        storage.write_json(path, {"id": uuid.uuid4().hex[:12]})
    try:
        return wandb.init(
            project=os.environ["WANDB_PROJECT"],
            # Not the stage's own folder, whose files are checksummed when the stage is complete.
            dir=str(folder.parent),
            id=storage.read_json(path)["id"],
            name=f"{folder.parent.name}/{folder.name}",
            resume="allow",
        )
    except Exception as error:
        raise UserError(
            f"Weights & Biases cannot be used: {error}: see `wandb login`, set "
            "WANDB_MODE=offline, or unset WANDB_PROJECT"
        ) from error


def write_metrics(folder: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Writes `metrics.jsonl` anew, in the form of `Metrics`, with one row for each step from 1."""
    with storage.atomic_file(folder / METRICS_FILE) as file:
        for step, values in enumerate(rows, start=1):
            file.write(_line(step, values).encode())


def order_samples(folder: Path, ids: Iterable[str]) -> None:
    """Sorts the lines of `samples.jsonl`, where there is one, by the rows that they belong to.

    Args:
      folder: of the file.
      ids: of the rows; each line has the "id" of its row, and gets the number of that as its step.
        Of two lines of a row that have the same "sample" the later one stays.
    """
    path = folder / SAMPLES_FILE
    rows = [json.loads(line) for line in _whole_lines(path, None)]
    if not rows:
        return
    known = {row.get("id") for row in rows}
    steps = {id: step for step, id in enumerate(ids, start=1) if id in known}
    latest = {
        (row["id"], row["sample"]): row | {"step": steps[row["id"]]}
        for row in rows
        if row.get("id") in steps
    }
    if latest:
        ordered = sorted(latest.values(), key=lambda row: row["step"])
        storage.write_text(path, "".join(map(_json_line, ordered)))


def num_rows(folder: Path) -> int:
    """Number of rows of `metrics.jsonl` in a folder."""
    return len(_whole_lines(folder / METRICS_FILE, None))


def _line(step: int, values: Mapping[str, float]) -> str:
    return _json_line({"step": int(step), **{name: float(v) for name, v in values.items()}})


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps(storage.plain(values), allow_nan=False) + "\n"


def _whole_lines(path: Path, resume_step: int | None) -> list[str]:
    """The lines of a file up to `resume_step`, without an incomplete last line."""
    with storage.reading(path):
        if not path.exists():
            return []
        storage.check_regular(path)
        text = path.read_text(encoding="utf-8", errors="replace")
    lines = []
    for line in text.splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if line.endswith("\n") and (resume_step is None or step <= resume_step):
            lines.append(line)
    return lines


class Progress:
    """Progress lines on stderr, a few seconds apart: units done, rate, estimated time left.

    The rate is that of the units alone: what else takes time (`outside`, `leave_out`) is no part of
    it. The time left counts what comes again, such as saves, and what comes once does not.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        done: int = 0,
        silent: bool = False,
        outside: Callable[[], float] | None = None,
        parts: tuple[str, int] | None = None,
    ):
        """Starts the clock.

        Args:
          name: what the lines begin with, e.g. the name of the stage.
          total: number of units.
          unit: name of the units, in the plural.
          done: units that were done before (of a resumed stage); not counted in the rate.
          silent: print nothing; for all processes of a run but the first.
          outside: seconds so far that no unit needs and that do not come again, such as those of
            compilation (`compile_clock.compile_seconds`); None: there are none.
          parts: name and number of the equal parts of a unit, where `update` is told how many are
            done: rate and time left are counted in them, long before a first unit is done.
        """
        self._silent = silent
        self._name, self._total, self._unit, self._parts = name, total, unit, parts
        self._start_done = self._done = done
        self._start_parts = self._done_parts = done * parts[1] if parts else 0
        self._start = self._rated_from = self._last_line = time.monotonic()
        self._outside = outside or (lambda: 0.0)
        self._outside_before = self._outside()
        self._recurring = 0.0
        self._shown: Mapping[str, Any] = {}
        if done and not silent:
            say(f"{name}: resuming at {done} of {total} {unit}")

    @property
    def done(self) -> int:
        """Units that were done when it was last told."""
        return self._done

    def update(self, done: int, *, done_parts: int = 0, **shown: Any) -> None:
        """Reports that `done` units are finished in total.

        Args:
          done: units.
          done_parts: parts of units that were done since the start, with `parts`.
          **shown: values to print with the units.
        """
        self._done = done
        self._done_parts = self._start_parts + done_parts
        self._shown = shown or self._shown
        now = time.monotonic()
        if now - self._last_line >= _INTERVAL and not self._silent:
            self._last_line = now
            say(self._line(now))

    def rate_from_here(self, done: int) -> None:
        """Leaves out of the rate all units so far and the time that they took.

        For a first unit that is not like the others, such as a step that compiles.
        """
        self._start_done = done
        self._rated_from, self._outside_before = time.monotonic(), self._outside()
        self._recurring = 0.0

    def leave_out(self, seconds: float) -> None:
        """Leaves seconds of something else than units, that comes again, out of the rate."""
        self._recurring += seconds

    def close(self) -> None:
        """Prints a last line with the totals."""
        if self._silent:
            return
        now = time.monotonic()
        rate, _ = self._rate_and_left(now)
        say(
            f"{self._name}: {self._done} of {self._total} {self._unit} "
            f"in {duration(now - self._start)}{rate}{_values(self._shown)}"
        )

    def _line(self, now: float) -> str:
        head = f"{self._name}: {self._done} of {self._total} {self._unit}"
        if self._parts:
            name, each = self._parts
            head += f", {self._done_parts:,} of {self._total * each:,} {name}"
        rate, left = self._rate_and_left(now)
        if not rate:
            return f"{head}, {duration(now - self._start)} so far{_values(self._shown)}"
        return f"{head}{rate}, {duration(left)} left{_values(self._shown)}"

    def _rate_and_left(self, now: float) -> tuple[str, float]:
        """The rate as text, and the seconds left; "" and 0 where they are not known yet."""
        unit, total = self._unit, self._total
        done, count = self._done, self._done - self._start_done
        if self._parts:
            unit, total = self._parts[0], self._total * self._parts[1]
            done, count = self._done_parts, self._done_parts - self._start_parts
        seconds = now - self._rated_from - (self._outside() - self._outside_before)
        own = seconds - self._recurring
        if count <= 0 or own <= 0:
            return "", 0.0
        return f", {_rate(count / own, unit)}", max(0, total - done) * seconds / count


def duration(seconds: float) -> str:
    """Human-readable duration: "4.2 s", "3 min 07 s", "2 h 05 min"."""
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
