"""Collectives between the processes of a run, on the host: barrier, gather, broadcast.

They use the key-value store of `jax.distributed`, which process 0 serves, and no devices: so they
work while the devices are busy, and can name the process that is missing. As with all collectives,
every process has to make the same calls in the same order. In a run of one process they are trivial
and import nothing.
"""

import json
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from stair_jax.stopping import heed

PATIENCE = 7 * 24 * 3600.0  # seconds: as good as forever; `watchdog.py` notices if a process dies
_FOLDER = "stair_jax"
_SLICE = 1.0  # seconds per blocking wait: Python handles signals only between two of them
_SHORTEST_POLL = 0.002  # seconds
_STOP_KEY = "RECEIVED_PREEMPTION_NOTICE"  # of JAX's preemption service
_count = 0  # collectives so far, the same in all processes
_cleared = 0  # collectives whose keys have been deleted


class LostProcess(Exception):
    """Another process of the run has died or does not respond; the message names it."""


def num_processes() -> int:
    """Number of processes of the run; 1 without `jax.distributed`."""
    state = _state()
    return 1 if state is None else state.num_processes


def process_index() -> int:
    """Index of this process, from 0."""
    state = _state()
    return 0 if state is None else state.process_id


def is_main() -> bool:
    """Whether this is process 0, which takes decisions and writes the shared files."""
    return process_index() == 0


def barrier(name: str, seconds: float = 600.0) -> None:
    """Waits until all processes have reached this call.

    Args:
      name: what they wait for, e.g. "the start of stage sft"; for the message.
      seconds: timeout.

    Raises:
      LostProcess: some processes did not arrive in time; names them.
      RuntimeError: a process is in another collective, which is a bug.
    """
    gather(name, None, seconds)


def gather(name: str, value: Any, seconds: float = 600.0) -> list[Any]:
    """A barrier that also collects a JSON value from each process on process 0.

    Args:
      name: as for `barrier`.
      value: JSON value of this process.
      seconds: timeout.

    Returns:
      the values by process index on process 0; an empty list on the others.

    Raises:
      LostProcess: as `barrier`.
      RuntimeError: as `barrier`.
    """
    if num_processes() == 1:
        return [value]
    folder = _next_folder()
    client = _state().client
    client.key_value_set(f"{folder}/here/{process_index()}", json.dumps([name, value]))
    deadline = time.monotonic() + seconds
    if not is_main():
        if _wait_for(f"{folder}/open", deadline) is None:
            raise _missing(name, _arrived(folder), seconds)
        return []
    arrived = _wait_for_all(folder, name, deadline, seconds)
    client.key_value_set(f"{folder}/open", "")
    _clear()
    return [arrived[process][1] for process in range(num_processes())]


def broadcast(value: Any, seconds: float = PATIENCE) -> Any:
    """Returns the JSON value of process 0 in all processes; the values of the others are ignored.

    Args:
      value: JSON value; used on process 0 only.
      seconds: timeout of the other processes.

    Raises:
      LostProcess: process 0 did not send a value within the timeout.
    """
    if num_processes() == 1:
        return value
    key = f"{_next_folder()}/value"
    if is_main():
        text = json.dumps(value)
        _state().client.key_value_set(key, text)
        return json.loads(text)  # not `value` itself: tuples are lists in all processes then
    received = _wait_for(key, time.monotonic() + seconds)
    if received is None:
        raise LostProcess(
            f"process 0 of {num_processes()} told the others nothing for {seconds:.0f} s: "
            "see what it says last"
        )
    return json.loads(received)


def request_stop() -> None:
    """Asks all processes to stop after a common step; may be called from a signal handler.

    It sets the key by which JAX's preemption service itself announces, e.g., maintenance of a TPU.
    """
    notice = datetime.now(UTC).isoformat()  # JAX reads it as the time of death
    # Where it fails, process 0 is gone, since JAX has announced the same signal or otherwise: there
    # is nobody left to ask, and the watchdog knows.
    with suppress(RuntimeError):
        _state().client.key_value_set(_STOP_KEY, notice, allow_overwrite=True)


def reached_stop(step: int) -> bool:
    """Whether all processes are to stop after this step, because one of them was asked to.

    Args:
      step: number of the step; all processes call this for each step, in ascending order.
    """
    if num_processes() == 1:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(step))


def _state() -> Any:
    """State of `jax.distributed`; None in a run of one process. Does not import JAX."""
    module = sys.modules.get("jax._src.distributed")
    if module is None or module.global_state.client is None:
        return None
    return module.global_state


def _next_folder() -> str:
    """Key prefix for the next collective: a running number that all processes count alike."""
    global _count
    _count += 1
    return f"{_FOLDER}/{_count}"


def _clear() -> None:
    """Deletes the keys of earlier collectives: all processes are in this one, past those."""
    global _cleared
    for meeting in range(_cleared + 1, _count):
        _state().client.key_value_delete(f"{_FOLDER}/{meeting}")
    _cleared = max(_cleared, _count - 1)


def _wait_for_all(
    folder: str, name: str, deadline: float, seconds: float
) -> dict[int, tuple[str, Any]]:
    """On process 0: polls until all processes have arrived; returns (name, value) by process."""
    pause = _SHORTEST_POLL
    while True:
        heed()
        arrived = _arrived(folder)
        for process, (other, _) in sorted(arrived.items()):
            if other != name:
                raise RuntimeError(f"process {process} waits for {other}, process 0 for {name}")
        if len(arrived) == num_processes():
            return arrived
        if time.monotonic() >= deadline:
            raise _missing(name, arrived, seconds)
        time.sleep(pause)
        pause = min(2 * pause, _SLICE)


def _arrived(folder: str) -> dict[int, tuple[str, Any]]:
    """(name, value) of each process that has arrived."""
    entries = _state().client.key_value_dir_get(f"{folder}/here/")
    return {int(key.rpartition("/")[2]): tuple(json.loads(text)) for key, text in entries}


def _missing(name: str, arrived: dict[int, tuple[str, Any]], seconds: float) -> LostProcess:
    count = num_processes()
    # If all have arrived, process 0 gave up just before the last one did.
    missing = [str(process) for process in range(count) if process not in arrived] or ["0"]
    noun = "process" if len(missing) == 1 else "processes"
    return LostProcess(
        f"{noun} {', '.join(missing)} of {count} did not come to {name} within {seconds:.0f} s: "
        "see what is said there last"
    )


def _wait_for(key: str, deadline: float) -> str | None:
    """The value of a key as soon as it is set; None if it is not set by the deadline."""
    client = _state().client
    while (left := deadline - time.monotonic()) > 0:
        heed()
        try:
            return client.blocking_key_value_get(key, max(1, int(1000 * min(left, _SLICE))))
        except Exception as error:  # jaxlib has no class of its own for a timeout
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
    return None
