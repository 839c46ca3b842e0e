"""Messages between the processes of a run: JSON objects, one per line, over TCP.

Whoever reaches the port can send anything, so nothing is taken for granted: a line has a longest
length and one deadline, and each message is checked for its very fields before it is used.
"""

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

LONGEST_LINE = 4096  # bytes
LINE_SECONDS = 5.0  # from the first byte of a line to its end
_LONGEST_TEXT = 900  # characters of a text for the user, of up to four bytes each


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends one JSON object as a line.

    Raises:
      OSError: the other side is gone.
    """
    connection.sendall(line_of(message))


def line_of(message: Mapping[str, Any]) -> bytes:
    """A message as it travels; its texts are cut where the line would be too long."""
    cut = {
        name: readable(value) if isinstance(value, str) else value
        for name, value in message.items()
    }
    line = json.dumps(cut, ensure_ascii=False).encode() + b"\n"
    assert len(line) <= LONGEST_LINE, "a message of ours is too long"
    return line


def receive(connection: socket.socket, wait: float | None) -> dict[str, Any] | None:
    """The next JSON object; None if the other side is gone, is too slow, or sends something else.

    Reads byte by byte, so that nothing of a later line is consumed; lines are few and short.

    Args:
      connection: to the other side; its timeout is changed.
      wait: seconds until the first byte; None: any time. From there on the whole line has
        `LINE_SECONDS`, however many bytes come one by one.
    """
    line = b""
    deadline = None if wait is None else time.monotonic() + wait
    while not line.endswith(b"\n"):
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= 0) or len(line) >= LONGEST_LINE:
            return None
        try:
            connection.settimeout(left)
            data = connection.recv(1)
        except OSError:
            return None
        if not data:
            return None
        if not line:
            deadline = time.monotonic() + LINE_SECONDS
        line += data
    return parse(line)


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None if it holds none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets without end
        return None
    return message if isinstance(message, dict) else None


def has_fields(message: Mapping[str, Any] | None, **kinds: type) -> bool:
    """Whether a message has exactly these fields, each of exactly this type (True is no number)."""
    return (
        message is not None
        and message.keys() == kinds.keys()
        and all(type(message[name]) is kind for name, kind in kinds.items())
    )


def readable(text: str) -> str:
    """A text of another process as it may be printed: one line, no control characters, not long."""
    return "".join(char if char.isprintable() else " " for char in text[:_LONGEST_TEXT])
