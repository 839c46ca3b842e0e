"""Responses that end when the client leaves, and server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Response
from starlette.types import Receive, Scope, Send

from stair_jax.server.errors import ApiError, ClientGoneError, as_api_error

T = TypeVar("T")
_JSON = json.JSONEncoder(separators=(",", ":"))
LOG = logging.getLogger("stair_jax.server")
DONE = b"data: [DONE]\n\n"


async def attended(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns; it is cancelled when the client leaves.

    Args:
      receive: of the request, whose body has been read.
      work: the coroutine.

    Raises:
      ClientGoneError: the client has left.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event_of(value: Any, name: str = "") -> bytes:
    """A server-sent event with a JSON value."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {_JSON.encode(value)}\n\n".encode()


class Streamed(Response):
    """A response of server-sent events.

    An error before the first event has its own status; a later one is the last event.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]):
        """Sends `events`, which are closed when the client leaves."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        try:
            async with aclosing(self._events):
                await attended(receive, self._send(scope, receive, send))
        except ClientGoneError:
            return

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            event = await anext(self._events)
        except Exception as error:
            await _told(error).response(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            await _send_body(send, event)
            async for event in self._events:
                await _send_body(send, event)
        except Exception as error:
            await _send_body(send, event_of(_told(error).body))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_body(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _told(error: Exception) -> ApiError:
    told = as_api_error(error)
    if told.status >= 500 and not isinstance(error, ApiError):
        LOG.exception("a stream has failed")
    return told
