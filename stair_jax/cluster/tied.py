"""A process that does not outlive the one that started it, however that one ends.

    python -m stair_jax.cluster.tied PARENT SIGNAL WORD...

becomes `python WORD...`, to which the kernel sends SIGNAL when the process PARENT is gone.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # of prctl(2), kept by execve; of the thread that started the process


def tied(words: Sequence[str], number: int = signal.SIGKILL) -> list[str]:
    """The words of a command that runs Python with others, tied to this process by a signal."""
    return [sys.executable, "-m", __name__, str(os.getpid()), str(int(number)), *words]


def _tie(parent: int, number: int) -> None:
    if sys.platform != "linux":  # such a machine has no accelerator of ours
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before
        sys.exit(128 + number)


if __name__ == "__main__":
    _tie(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
