"""Checks of how the processes of a run exit after one of them got a signal."""

import re
import signal
from collections.abc import Sequence

from soak.command import Started

_AGAIN = "the same command goes on where it stopped"
_LOGGED = re.compile(r"[IWEF]\d{4} \d\d:\d\d:")  # how a line of JAX's log in C++ begins
_LOST = 4  # exit status after the loss of another process
_GOES_ON = re.compile(r"^\[\d+ of \d+\] \S+: (starts|done in .*)$", re.MULTILINE)


def problems(
    number: int, process: int, statuses: Sequence[int | None], started: Started, before: str
) -> list[str]:
    """What was wrong with the exit, one line each.

    Args:
        number: of the signal.
        process: that got it.
        statuses: exit statuses of all processes; None: still running.
        started: the processes.
        before: output of process 0 when the signal was sent.
    """
    if None in statuses:
        return [f"did not exit in time: {list(statuses)}"]
    if number != signal.SIGKILL and set(statuses) == {0}:
        went_on = _GOES_ON.findall(started.output()[len(before) :])
        return ["the signal was ignored: the run continued to its end"] if went_on else []
    found = []
    for index, status in enumerate(statuses):
        expected = _expected(number, index == process)
        if status == 0 and started.count > 1:
            continue  # it had just finished the run
        if status not in expected:
            found.append(f"process {index} exited with {status}, not {expected[0]}")
        if status is not None and status > 0:  # it had the chance to print its last line
            found += _unclear(index, started.output(index))
    return found


def _expected(number: int, is_its_own: bool) -> tuple[int, ...]:
    """Correct exit statuses; a negative one means that no handler was installed."""
    if number == signal.SIGKILL:
        return (-signal.SIGKILL,) if is_its_own else (_LOST,)
    return (128 + number, -number)  # the second during start-up


def _unclear(index: int, output: str) -> list[str]:
    """What was wrong with the last lines of a process."""
    lines = output.splitlines()
    found = []
    if "Traceback" in output:
        found.append(f"process {index} printed a traceback")
    own = [number for number, line in enumerate(lines) if line.startswith("stair_jax: ")]
    behind = lines[own[-1] + 1 :] if own else []
    # The process ends right behind its line, but JAX's own threads may log meanwhile.
    if not own or _AGAIN not in lines[own[-1]] or (behind and not _LOGGED.match(behind[0])):
        found.append(f"process {index} did not end with the line that the same command goes on")
    if len(own) > 1:
        found.append(f"process {index} reported its end more than once")
    return found
