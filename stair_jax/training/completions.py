"""When the devices were done with each step, which the training loop itself sees late or early.

Dispatch is asynchronous: the loop reads a step's metrics after it has dispatched the next one. How
long that takes depends on the host: it may return at once, or, where the program loops a number of
times that the device tells (micro-batches on a GPU), only when the next step is nearly done too. So
the time between two readings is no time of a step; a thread that does nothing but wait sees one.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import jax


class Completions:
    """A thread that notes when values are computed, in the order in which it is told of them."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        """Starts the thread.

        Args:
          clock: seconds.
        """
        self.clock = clock
        self._queue: SimpleQueue[tuple[Any, Future[float]] | None] = SimpleQueue()
        # A daemon: where a device hangs, a second Ctrl-C ends the process all the same.
        self._thread = threading.Thread(target=self._run, name="completions", daemon=True)
        self._thread.start()

    def watch(self, values: Any) -> "Future[float]":
        """The time at which a pytree of arrays is computed, as soon as it is known."""
        completed: Future[float] = Future()
        self._queue.put((values, completed))
        return completed

    def close(self) -> None:
        """Waits for the values that it was told of, as reading them would, and stops the thread.

        A process must not end while the thread is inside of JAX.
        """
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            values, completed = item
            with suppress(Exception):  # of the step: raised where its values are read
                jax.block_until_ready(values)
            completed.set_result(self.clock())
            del item, values, completed  # nothing is held until the next step
