"""The processes of a run: who is the first, where they meet, what they tell each other.

They meet through the key-value store of `jax.distributed`, which process 0 serves; no device takes
part. What waits here is called by all processes, in the same order. In a run of one process all of
it is trivial and imports nothing.
"""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

PATIENCE = 7 * 24 * 3600.0  # seconds to wait for work of any length: `peers` notices a death
_FOLDER = "stair_jax"
_SLICE = 1.0  # seconds of one wait: between two of them Python heeds signals
_SHORTEST_POLL = 0.002
_STOP_KEY = "RECEIVED_PREEMPTION_NOTICE"  # of JAX's preemption service
_count = 0  # of meetings so far
_cleared = 0  # meetings whose keys are deleted


class LostProcess(Exception):
    """Another process of the run is gone or does not come; the message names it."""


def num_processes() -> int:
    """How many processes the run has."""
    state = _state()
    return 1 if state is None else state.num_processes


def process_index() -> int:
    """Which of them this is."""
    state = _state()
    return 0 if state is None else state.process_id


def is_main() -> bool:
    """Whether this process decides and writes: the first of the run, or the only one."""
    return process_index() == 0


def barrier(name: str, seconds: float = 600.0) -> None:
    """Waits until all processes are here.

    Args:
      name: what they wait for, e.g. "the start of stage sft"; for the message.
      seconds: how long to wait.

    Raises:
      LostProcess: some did not come in time; names them.
      RuntimeError: a process waits for something else: a fault of ours.
    """
    gather(name, None, seconds)


def gather(name: str, value: Any, seconds: float = 600.0) -> list[Any]:
    """A barrier where process 0 gets the JSON values of all, by process; others get nothing.

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
    """The JSON value that process 0 gives, in all processes; theirs counts for nothing.

    Raises:
      LostProcess: process 0 did not give one within so many seconds.
    """
    if num_processes() == 1:
        return value
    key = f"{_next_folder()}/value"
    if is_main():
        text = json.dumps(value)
        _state().client.key_value_set(key, text)
        return json.loads(text)
    received = _wait_for(key, time.monotonic() + seconds)
    if received is None:
        raise LostProcess(
            f"process 0 of {num_processes()} told the others nothing for {seconds:.0f} s: "
            "see what it says last"
        )
    return json.loads(received)


def request_stop() -> None:
    """Asks all processes to stop behind the same step; a signal handler may call this.

    One that is asked by JAX itself (it hears of maintenance of a TPU) asks the others alike.
    """
    notice = datetime.now(UTC).isoformat()  # JAX reads it as the time of death
    _state().client.key_value_set(_STOP_KEY, notice, allow_overwrite=True)


def reached_stop(step: int) -> bool:
    """Whether all processes stop behind this step, since one was asked to.

    Args:
      step: called with each step in its order, by all processes.
    """
    if num_processes() == 1:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(step))


def _state() -> Any:
    """JAX's own record of the processes; None in a run of one."""
    module = sys.modules.get("jax._src.distributed")
    if module is None or module.global_state.client is None:
        return None
    return module.global_state


def _next_folder() -> str:
    """Where the next meeting takes place in the store: the same in all processes."""
    global _count
    _count += 1
    return f"{_FOLDER}/{_count}"


def _clear() -> None:
    """Deletes the keys of earlier meetings: who has come to this one has left those."""
    global _cleared
    for meeting in range(_cleared + 1, _count):
        _state().client.key_value_delete(f"{_FOLDER}/{meeting}")
    _cleared = max(_cleared, _count - 1)


def _wait_for_all(
    folder: str, name: str, deadline: float, seconds: float
) -> dict[int, tuple[str, Any]]:
    """The first process counts who has come."""
    pause = _SHORTEST_POLL
    while True:
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
    """(name, value) by process that has come."""
    entries = _state().client.key_value_dir_get(f"{folder}/here/")
    return {int(key.rpartition("/")[2]): tuple(json.loads(text)) for key, text in entries}


def _missing(name: str, arrived: dict[int, tuple[str, Any]], seconds: float) -> LostProcess:
    count = num_processes()
    # Where all have come, the first one has given up just before the last one came.
    missing = [str(process) for process in range(count) if process not in arrived] or ["0"]
    noun = "process" if len(missing) == 1 else "processes"
    return LostProcess(
        f"{noun} {', '.join(missing)} of {count} did not come to {name} within {seconds:.0f} s: "
        "see what is said there last"
    )


def _wait_for(key: str, deadline: float) -> str | None:
    """The value of a key as soon as it is there; None at the deadline."""
    client = _state().client
    while (left := deadline - time.monotonic()) > 0:
        try:
            return client.blocking_key_value_get(key, max(1, int(1000 * min(left, _SLICE))))
        except Exception as error:  # of jaxlib, told apart by its text
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
    return None
