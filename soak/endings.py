"""Whether the processes of a run ended in order after one of them got a signal."""

import re
import signal
from collections.abc import Sequence

from soak.command import Started

_AGAIN = "the same command goes on where it stopped"
_LOST = 4  # exit status where another process of the run was lost
_GOES_ON = re.compile(r"^\[\d+ of \d+\] \S+: (starts|done in .*)$", re.MULTILINE)


def problems(
    number: int, process: int, statuses: Sequence[int | None], started: Started, before: str
) -> list[str]:
    """What was not in order, a line each.

    Args:
        number: of the signal.
        process: that got it.
        statuses: that the processes ended with; None where one did not end.
        started: the processes.
        before: what process 0 had said when the signal was sent.
    """
    if None in statuses:
        return [f"did not end in time: {list(statuses)}"]
    if number != signal.SIGKILL and set(statuses) == {0}:
        went_on = _GOES_ON.findall(started.said()[len(before) :])
        return ["the signal was not heeded: the run went on to its end"] if went_on else []
    found = []
    for index, status in enumerate(statuses):
        expected = _expected(number, index == process)
        if status == 0 and started.count > 1:
            continue  # one that had just come to its end
        if status not in expected:
            found.append(f"process {index} ended with {status}, not {expected[0]}")
        if status is not None and status > 0:  # it had time for a last word
            found += _unclear(index, started.said(index))
    return found


def _expected(number: int, is_its_own: bool) -> tuple[int, ...]:
    """Exit statuses in order; a negative one is that of a signal that nothing handled."""
    if number == signal.SIGKILL:
        return (-signal.SIGKILL,) if is_its_own else (_LOST,)
    return (128 + number, -number)  # the second one before the command line has its handlers


def _unclear(index: int, said: str) -> list[str]:
    """What keeps the end of a process from being one clear line."""
    lines = said.splitlines()
    found = []
    if "Traceback" in said:
        found.append(f"process {index} ended with a traceback")
    if not lines or not lines[-1].startswith("stair_jax: ") or _AGAIN not in lines[-1]:
        found.append(f"process {index} did not end with a line that says how to go on")
    if sum(line.startswith("stair_jax: ") for line in lines) > 1:
        found.append(f"process {index} said how it ended more than once")
    return found
