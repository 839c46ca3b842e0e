"""A client of the server, as a process of its own: streams that ask again when they are answered.

    python -m benchmarks.serving_client HOST:PORT STREAMS <BODIES >FIGURES

Reads bodies of chats from stdin, one JSON a line, and prints figures as one JSON line. Plain
sockets of asyncio, and as little work a piece as can be: it shares the machine with the server.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"


@dataclass
class Seen:
    """What all streams have seen.

    Attributes:
      tokens: of answers, as the server counts them.
      pieces: with text.
      firsts: seconds from a request to its first piece.
      gaps: seconds between two pieces of an answer.
    """

    tokens: int = 0
    pieces: int = 0
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


def main() -> None:
    """Asks all that stdin has."""
    address, streams = sys.argv[1:]
    bodies = [line.strip() for line in sys.stdin.buffer if line.strip()]
    start = time.perf_counter()
    seen = asyncio.run(ask_all(address, bodies, int(streams)))
    seconds = time.perf_counter() - start
    print(json.dumps(figures(seen, seconds)))


async def ask_all(address: str, bodies: list[bytes], streams: int) -> Seen:
    """Each stream asks the next body when it is answered, over one connection."""
    waiting, seen = iter(bodies), Seen()
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(_stream(address, waiting, seen))
    return seen


async def _stream(address: str, bodies: Iterator[bytes], seen: Seen) -> None:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for body in bodies:
        writer.write(_HEAD.format(host=address, length=len(body)).encode() + body)
        await _answer(reader, seen)
    writer.close()
    await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader, seen: Seen) -> None:
    """Reads one response: server-sent events in chunks, each event within one chunk."""
    last = start = time.perf_counter()
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the server says {head.splitlines()[0].decode()}")
    while size := int(await reader.readline(), 16):
        event = (await reader.readexactly(size + 2))[:-2]
        if b'"content":"' in event and b'"content":""' not in event:
            now = time.perf_counter()
            (seen.gaps if last != start else seen.firsts).append(now - last)
            seen.pieces, last = seen.pieces + 1, now
        elif b'"usage":{' in event:
            usage = json.loads(event.partition(b"data: ")[2])["usage"]
            seen.tokens += usage["completion_tokens"]
        elif b'"error":{' in event:
            raise RuntimeError(event.decode())
    await reader.readline()


def figures(seen: Seen, seconds: float) -> dict[str, Any]:
    """What is printed."""
    return {
        "seconds": seconds,
        "tokens": seen.tokens,
        "pieces": seen.pieces,
        "first_ms": [1e3 * quantile(seen.firsts, share) for share in (0.5, 0.95)],
        "gap_ms": [1e3 * quantile(seen.gaps, share) for share in (0.5, 0.95)],
        "client_cpu_share": time.process_time() / seconds,
    }


def quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all values does not exceed; 0: there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


if __name__ == "__main__":
    main()
