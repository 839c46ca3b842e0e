"""Ctrl-C and SIGTERM: an exception that ends the command, raised again where it gets lost.

The exception of a signal handler appears in whatever Python runs at that moment. That may be a
callback whose exceptions nobody sees: `__del__`, a callback of a weak reference, or one of the
garbage collector, of which JAX has one. So the handler sets a flag too. Loops look at it (`heed`),
and a timer, for code that has no such loop; both raise again unless the exception is on its way.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SECONDS = 0.5  # between two looks of the timer


class Stopped(KeyboardInterrupt):
    """A signal asked to stop: leave by way of every `finally`.

    A KeyboardInterrupt, as asyncio and other libraries let those through at once.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.number = number


class StopSignals:
    """Context manager in which SIGINT and SIGTERM raise `Stopped`, until `settle` is called.

    To be used in the main thread, in which Python runs the handlers of signals. A SIGINT that is
    ignored, as in background jobs of a shell, stays so.

    Attributes:
      number: of the signal that came last; None: none came.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._is_settled = False
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook
        self._outer: StopSignals | None = None

    def __enter__(self) -> "StopSignals":
        global _active
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_signal)
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_timer)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        self._outer, _active = _active, self
        return self

    def __exit__(self, *exception: object) -> None:
        global _active
        signal.setitimer(signal.ITIMER_REAL, 0)
        _active, sys.unraisablehook = self._outer, self._hook
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def asking_first(self) -> Iterator[Callable[[], bool]]:
        """Context in which the first SIGINT raises nothing: for work that ends at a good place.

        A second one raises `Stopped`, as SIGTERM does.

        Yields:
          a function that tells whether the first one came.
        """
        asked: list[int] = []

        def on_interrupt(number: int, frame: FrameType | None) -> None:
            if asked:
                self._on_signal(number, frame)
            asked.append(number)

        if signal.SIGINT not in self._before:  # it is ignored
            yield lambda: False
            return
        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield lambda: bool(asked)
        finally:
            signal.signal(signal.SIGINT, self._on_signal)

    def go_on(self) -> None:
        """To be called by who caught `Stopped` and goes on all the same."""
        self.number = None
        signal.setitimer(signal.ITIMER_REAL, 0)

    def settle(self) -> None:
        """To be called when the command ends: from now on the signals change nothing."""
        self._is_settled = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def raise_again(self) -> None:
        """Raises `Stopped` if a signal came and its exception is not on its way."""
        if self.number is not None and not self._is_settled and not _is_on_its_way():
            raise Stopped(self.number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_settled:
            return
        self.number = number
        signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
        raise Stopped(number)

    def _on_timer(self, number: int, frame: FrameType | None) -> None:
        self.raise_again()

    def _on_unraisable(self, args: "sys.UnraisableHookArgs") -> None:
        """Says nothing of a `Stopped` that was dropped: it is raised again."""
        if not isinstance(args.exc_value, Stopped):
            self._hook(args)


_active: StopSignals | None = None


def heed() -> None:
    """For loops: raises `Stopped` if a signal asked to stop and its exception was dropped.

    Within a `finally` that this exception has reached it does nothing, so that cleaning up is not
    cut short; nor in other threads, or without an active `StopSignals`, as in other programs.
    """
    if _active is not None and threading.current_thread() is threading.main_thread():
        _active.raise_again()


def _is_on_its_way() -> bool:
    """Whether the code that runs cleans up behind a `Stopped`, in a `finally` or `__exit__`."""
    error = sys.exception()
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Stopped):
            return True
        seen.add(id(error))
        error = error.__context__
    return False
