"""Preemption: on SIGTERM, training finishes its step, saves a checkpoint, and exits as asked."""

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Any

from stair_jax.parallel.processes import collectives

# JAX needs step numbers that increase over the life of a process, which may train several stages.
_asked = itertools.count(1)


class Preemption:
    """Context manager that turns SIGTERM into a flag, which is polled between training steps.

    `leave` does what SIGTERM would have done without this context manager, so that the exit status
    is the same; the end of the block does so too, for a signal that came after the last poll.
    Python handles signals in its main thread only; in any other thread nothing is changed.

    In a multi-process run, a signal to one process is passed on by `jax.distributed`, and all
    processes agree on a common last step, which none of them has passed.
    """

    def __init__(self, heeds: bool = True) -> None:
        """With `heeds` False, for a run that saves nothing, SIGTERM keeps its usual effect."""
        self._heeds = heeds
        self._noticed = False
        self._before: Any = None
        self._is_ours = False

    def __enter__(self) -> "Preemption":
        self._before = signal.getsignal(signal.SIGTERM)
        in_main_thread = threading.current_thread() is threading.main_thread()
        heeded = self._heeds and self._before is not signal.SIG_IGN
        if in_main_thread and heeded:
            signal.signal(signal.SIGTERM, self._notice)
            self._is_ours = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._noticed and kind is None:
            self.leave()
        self._restore()

    def reached(self) -> bool:
        """Whether to save and leave now.

        In a multi-process run this is collective: all processes call it before the first step and
        after each step.
        """
        if not self._heeds or collectives.num_processes() == 1:
            return self._noticed
        try:
            return collectives.reached_stop(next(_asked))
        except RuntimeError:  # the user has disabled JAX's preemption service
            return False

    def leave(self) -> None:
        """Ends the process as SIGTERM would: through the previous handler, or immediately."""
        self._noticed = False
        self._restore()
        if callable(self._before):
            self._before(signal.SIGTERM, None)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
        if collectives.num_processes() > 1:
            collectives.request_stop()

    def _restore(self) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
            self._is_ours = False
