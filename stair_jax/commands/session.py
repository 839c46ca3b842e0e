"""How a command ends: what this process says, and what the other processes of the run are told."""

import os
import signal
import sys
import traceback

from stair_jax.parallel.processes import collectives
from stair_jax.parallel.processes.watchdog import Watchdog
from stair_jax.stopping import StopSignals


class Session:
    """A command from its start to its end.

    Attributes:
      signals: what asks this process to stop.
      watchdog: the line to the other processes of the run; None: there are none.
      on_interrupt: what is said after "interrupted" or "terminated".
    """

    def __init__(self, signals: StopSignals) -> None:
        """A command that has just started."""
        self.signals = signals
        self.watchdog: Watchdog | None = None
        self.on_interrupt = "nothing was written"

    def end(self, status: int, text: str) -> int:
        """Says how it ends; with other processes, it ends here."""
        self.signals.settle()
        if self.watchdog is None:
            print(f"stair_jax: {text}", file=sys.stderr, flush=True)
            return status
        if status == 2 and not collectives.is_main():
            self.watchdog.settle()  # most mistakes are everybody's: the first one tells
        self._leave(self.watchdog, status, text)
        raise AssertionError("a process that left is still there")

    def end_by_signal(self) -> int:
        """Says that a signal ended it; with other processes, it ends here."""
        number = self.signals.number or signal.SIGINT
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        return self.end(128 + number, f"{word}: {self.on_interrupt}")

    def fail(self, error: Exception) -> None:
        """With other processes, ends here with a traceback, unless it is their end that shows."""
        self.signals.settle()
        if self.watchdog is not None:
            self.watchdog.settle()
            traceback.print_exc()
            self._leave(self.watchdog, 1, f"{type(error).__name__}: {error}"[:500])

    def _leave(self, watchdog: Watchdog, status: int, text: str) -> None:
        """Ends the process without JAX's own end, which waits for the others."""
        who = f"process {collectives.process_index()} of {collectives.num_processes()}"
        print(f"stair_jax: {who}: {text}", file=sys.stderr, flush=True)
        watchdog.leave(status, text)
        sys.stdout.flush()
        os._exit(status)
