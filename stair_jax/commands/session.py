"""How a command ends: what this process says, and what the other processes of the run are told."""

import os
import signal
import sys
import traceback

from stair_jax.parallel import distributed
from stair_jax.parallel.peers import Peers


class Session:
    """A command from its start to its end.

    Attributes:
      peers: the line to the other processes of the run; None: there are none.
      on_interrupt: what is said after "interrupted" or "terminated".
    """

    def __init__(self) -> None:
        self.peers: Peers | None = None
        self.on_interrupt = "nothing was written"

    def end(self, status: int, text: str) -> int:
        """Says how it ends; with other processes, it ends here."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.peers is None:
            print(f"stair_jax: {text}", file=sys.stderr, flush=True)
            return status
        if status == 2 and not distributed.is_main():
            self.peers.settle()  # most mistakes are everybody's: the first one tells
        self._leave(self.peers, status, text)
        raise AssertionError("a process that left is still there")

    def fail(self, error: Exception) -> None:
        """With other processes, ends here with a traceback, unless it is their end that shows."""
        if self.peers is not None:
            self.peers.settle()
            traceback.print_exc()
            self._leave(self.peers, 1, f"{type(error).__name__}: {error}"[:500])

    def _leave(self, peers: Peers, status: int, text: str) -> None:
        """Ends the process without JAX's own end, which waits for the others."""
        who = f"process {distributed.process_index()} of {distributed.num_processes()}"
        print(f"stair_jax: {who}: {text}", file=sys.stderr, flush=True)
        peers.leave(status, text)
        sys.stdout.flush()
        os._exit(status)
