"""SIGTERM while a run trains: the step is finished and saved, then the process ends as asked."""

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Any

from stair_jax.parallel import distributed

_asked = itertools.count(1)  # of the process: JAX wants numbers that rise from run to run


class Preemption:
    """A notice that the machine is to be taken away, as a flag that is asked for between steps.

    Within the block, SIGTERM sets the flag. `leave` then does what SIGTERM would have done outside
    of the block, so that the exit status is the same; and so does the end of the block, where the
    notice came too late to be asked for. Outside of the main thread of Python, which alone may
    handle signals, nothing is taken over.

    In a run of several processes a notice to one of them is passed on by `jax.distributed`, and all
    agree on a step that none of them has passed.
    """

    def __init__(self, heeds: bool = True) -> None:
        """No notice yet; where a run saves nothing it `heeds` none, and SIGTERM ends it at once."""
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
        """Whether to save and leave now; asked before the first step and after each by all."""
        if not self._heeds or distributed.num_processes() == 1:
            return self._noticed
        try:
            return distributed.reached_stop(next(_asked))
        except RuntimeError:  # the user has turned the service off
            return False

    def leave(self) -> None:
        """Ends the process as SIGTERM would: by the exception of its handler, or at once."""
        self._noticed = False
        self._restore()
        if callable(self._before):
            self._before(signal.SIGTERM, None)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
        if distributed.num_processes() > 1:
            distributed.request_stop()

    def _restore(self) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
            self._is_ours = False
