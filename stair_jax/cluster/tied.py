"""A process that does not outlive the one that started it, however that one ends.

    python -m stair_jax.cluster.tied PARENT WORD...

becomes `python WORD...`, which the kernel kills when the process PARENT is gone.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of prctl(2), kept by execve; of the thread that started the process


def tied(words: list[str]) -> list[str]:
    """The words of a command that runs Python with others, tied to this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *words]


def _tie(parent: int) -> None:
    if sys.platform != "linux":  # such a machine has no accelerator of ours
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        sys.exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    _tie(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
