"""When a measurement ends, and how long the devices were busy, by the profiler's trace."""

import gzip
import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from stair_jax.decoding.requests import EngineStats

Spans = list[tuple[float, float]]
# Kinds of kernels by their names, the first that fits; all else is elementwise work of XLA.
_KINDS = (
    ("communication", re.compile("nccl|all-reduce|all-gather|reduce-scatter|all-to-all", re.I)),
    ("attention", re.compile("cudnn|flash|fmha|sdpa|splash", re.I)),
    ("products", re.compile("gemm|nvjet|cutlass|cublas|xmma|dot", re.I)),
    ("copies", re.compile("copy|memcpy|memset|slice", re.I)),
)


class Trace:
    """A window that is profiled: `start()`, work, `stop()`."""

    def __init__(self) -> None:
        """Writes nothing yet."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Starts to profile the devices; the host's Python is left alone."""
        self._folder = tempfile.TemporaryDirectory()
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        options.host_tracer_level = 1
        jax.profiler.start_trace(self._folder.name, profiler_options=options)

    def kernels(self) -> dict[str, float]:
        """Stops; seconds of the kernels of each kind, see `kernel_seconds`."""
        return kernel_seconds(self._stopped())

    def stop(self) -> tuple[list[float], dict[str, float]]:
        """Seconds that each device computed in the window, and those of each program.

        Both are empty where no device is traced.
        """
        events = self._stopped()
        return busy_seconds(events), program_seconds(events)

    def _stopped(self) -> list[dict[str, Any]]:
        assert self._folder is not None, "start() comes first"
        jax.profiler.stop_trace()
        with self._folder as folder:
            files = sorted(Path(folder).rglob("*.trace.json.gz"))
            return [event for file in files for event in _events(file)]


def _events(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as text:
        return json.load(text)["traceEvents"]


def busy_seconds(events: Iterable[dict[str, Any]]) -> list[float]:
    """For each device, the time in which at least one of its kernels ran.

    Args:
        events: of a trace in Chrome's format, times in microseconds.
    """
    devices: dict[int, str] = {}
    rows: set[tuple[int, int]] = set()
    kernels: dict[int, dict[int, Spans]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.get("ph") == "M":
            name = event["args"].get("name", "")
            if event["name"] == "process_name" and name.startswith("/device:"):
                devices[event["pid"]] = name
            # Other rows repeat the same time by module, by step and by name.
            if event["name"] == "thread_name" and (name.startswith("Stream") or name == "XLA Ops"):
                rows.add((event["pid"], event["tid"]))
        elif event.get("ph") == "X":
            span = (event["ts"], event["ts"] + event.get("dur", 0.0))
            kernels[event["pid"]][event["tid"]].append(span)
    return [
        covered(
            [span for row, spans in kernels[pid].items() if (pid, row) in rows for span in spans]
        )
        / 1e6
        for pid, _ in sorted(devices.items(), key=lambda item: item[1])
        if any((pid, row) in rows for row in kernels[pid])
    ]


def program_seconds(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Seconds of the kernels of each compiled program, all devices together.

    Args:
        events: of a trace in Chrome's format, times in microseconds; kernels name their program.
    """
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        module = event.get("args", {}).get("hlo_module") if event.get("ph") == "X" else None
        if module:
            seconds[module] += event.get("dur", 0.0) / 1e6
    return dict(seconds)


def kernel_seconds(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Seconds of the kernels of each kind, all devices together.

    Args:
        events: of a trace in Chrome's format, times in microseconds.
    """
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("ph") == "X" and "hlo_module" in event.get("args", {}):
            name = f"{event['name']} {event['args'].get('hlo_op', '')}"
            kind = next((kind for kind, names in _KINDS if names.search(name)), "other")
            seconds[kind] += event.get("dur", 0.0) / 1e6
    return dict(seconds)


def covered(spans: Spans) -> float:
    """Length of the union of spans (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


class Clock:
    """Says when a search is over: after `seconds`, and a window that is profiled.

    Attributes:
        seconds: until the end of what is measured, of the time that there was or was needed.
        stats: at that moment.
        halfway: seconds, and what was counted, once half of the time was over.
        busy: share of the profiled window in which the devices computed; None: not profiled.
        programs: seconds in that window of the kernels of each program.
    """

    def __init__(self, counted: EngineStats, seconds: float, trace_seconds: float):
        """Starts now; `counted` is what an engine counts in."""
        self.busy: float | None = None
        self.programs: dict[str, float] = {}
        self.stats: EngineStats | None = None
        self.halfway: tuple[float, EngineStats] | None = None
        self.seconds = 0.0
        self._counted, self._trace = counted, Trace() if trace_seconds else None
        self._start = self._opened = time.perf_counter()
        self._middle, self._end = self._start + seconds / 2, self._start + seconds
        self._trace_seconds = trace_seconds

    def close(self) -> None:
        """Notes the end of what is measured, once."""
        if self.stats is None:
            self.seconds = time.perf_counter() - self._start
            self.stats = EngineStats(**vars(self._counted))

    def __call__(self) -> bool:
        """Whether it is over."""
        now = time.perf_counter()
        if self.halfway is None and now >= self._middle:
            self.halfway = now - self._start, EngineStats(**vars(self._counted))
        if now < self._end:
            return False
        if self._trace is None:
            return True
        if self.stats is None:
            self.close()
            self._trace.start()
            self._opened = time.perf_counter()
        elapsed = time.perf_counter() - self._opened
        if elapsed < self._trace_seconds:
            return False
        busy, self.programs = self._trace.stop()
        self.busy = min(busy) / elapsed if busy else None
        return True
