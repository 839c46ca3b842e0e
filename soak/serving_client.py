"""Clients of a server that leave in the middle of an answer."""

import asyncio
import contextlib
import random
import socket
import struct

from soak.serving_bodies import draw_long

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the connection is reset at once


async def leave(address: tuple[str, int], rng: random.Random) -> None:
    """Asks something, and leaves at a random moment.

    Args:
      address: host and port of the server.
      rng: of what is asked, and of the moment.
    """
    drawn = draw_long(rng)
    head = (
        f"{drawn.method} {drawn.path} HTTP/1.1\r\nHost: tiny\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(drawn.body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(*address)
    try:
        sent = head.encode() + drawn.body
        # Now and then before all has been said.
        is_whole = rng.random() < 0.9
        writer.write(sent if is_whole else sent[: rng.randrange(len(sent))])
        await writer.drain()
        if is_whole and rng.random() < 0.5:
            await asyncio.wait_for(reader.read(rng.randrange(1, 2000)), 30)
        else:
            await asyncio.sleep(rng.random() * 0.3)
    finally:
        if rng.random() < 0.5:
            own: socket.socket = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
