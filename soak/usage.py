"""What this process holds: memory, file descriptors, threads, objects."""

import gc
import os
import resource
from pathlib import Path

import numpy as np

KINDS = ("memory_mb", "descriptors", "threads", "objects")
_STATUS = Path("/proc/self/status")
_DESCRIPTORS = Path("/proc/self/fd")


class Held:
    """What is held at several moments, in an array that is as large from the start.

    The kinds are resident memory in MB, open file descriptors, threads (those of libraries too),
    and the objects of Python that the garbage collector knows, after a collection.
    """

    def __init__(self, looks: int):
        """No look was taken."""
        self._values = np.zeros((looks, len(KINDS)))
        self._count = 0

    def look(self) -> None:
        """Writes down what is held now."""
        gc.collect()
        lines = (line.partition(":") for line in _STATUS.read_text().splitlines())
        status = {name: value.split() for name, _, value in lines}
        self._values[self._count] = (
            int(status["VmRSS"][0]) / 1024,
            len(os.listdir(_DESCRIPTORS)),
            int(status["Threads"][0]),
            len(gc.get_objects()),
        )
        self._count += 1

    def later(self, share: float) -> dict[str, np.ndarray]:
        """By kind, what was held in the looks after the first `share` of them."""
        values = self._values[round(share * self._count) : self._count]
        return dict(zip(KINDS, values.T, strict=True))


def peak_memory() -> float:
    """MB that were resident at most since the process began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
