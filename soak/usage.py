"""Resource usage of this process: memory, file descriptors, threads, Python objects."""

import gc
import os
import resource
from pathlib import Path

import numpy as np

KINDS = ("memory_mb", "descriptors", "threads", "objects")
_STATUS = Path("/proc/self/status")
_DESCRIPTORS = Path("/proc/self/fd")


class UsageSamples:
    """Samples of resource usage, in an array that is allocated once.

    A sample consists of resident memory in MB, open file descriptors, threads (those of libraries
    too), and the Python objects that the garbage collector tracks, after a collection.
    """

    def __init__(self, count: int):
        """Allocates room for `count` samples."""
        self._values = np.zeros((count, len(KINDS)))
        self._taken = 0

    def take(self) -> None:
        """Takes a sample."""
        gc.collect()
        lines = (line.partition(":") for line in _STATUS.read_text().splitlines())
        status = {name: value.split() for name, _, value in lines}
        self._values[self._taken] = (
            int(status["VmRSS"][0]) / 1024,
            len(os.listdir(_DESCRIPTORS)),
            int(status["Threads"][0]),
            len(gc.get_objects()),
        )
        self._taken += 1

    def after(self, share: float) -> dict[str, np.ndarray]:
        """The samples after the first `share` of them, by kind of resource."""
        values = self._values[round(share * self._taken) : self._taken]
        return dict(zip(KINDS, values.T, strict=True))


def peak_memory() -> float:
    """Peak of the resident memory since the process started, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
