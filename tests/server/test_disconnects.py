"""A client that leaves frees what its request has in the engine."""

import asyncio
import json

import pytest

from stair_jax.server.app import make_app

CHAT = "/v1/chat/completions"


class Client:
    """One request of ASGI, by hand: the client leaves when `leave` is called.

    Attributes:
      sent: messages of the app.
    """

    def __init__(self, body):
        self._body, self._has_left, self._is_read = (
            json.dumps(body).encode(),
            asyncio.Event(),
            False,
        )
        self.sent = []

    async def receive(self):
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    def leave(self):
        self._has_left.set()

    async def run(self, app):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": CHAT,
            "raw_path": CHAT.encode(),
            "query_string": b"",
            "headers": [(b"host", b"tiny"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("tiny", 80),
        }
        await app(scope, self.receive, self.send)


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 6}, {"n": 6, "stream": True}])
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_client_that_leaves_frees_its_pages(serve, chat_body, answerer, fields, pieces):
    """Before anything has come, and while a stream is under way."""

    async def run():
        async with serve() as (_, serving):
            client = Client(chat_body(temperature=1, max_tokens=100, **fields))
            request = asyncio.create_task(client.run(make_app(serving)))
            while not serving.thread.num_open and not request.done():
                await asyncio.sleep(0)
            while "stream" in fields and len(client.sent) < pieces and not request.done():
                await asyncio.sleep(0)
            client.leave()
            await request
            assert serving.num_requests == 0 and serving.thread.num_open == 0
            engine = answerer.engine
            while await serving.thread.call(lambda _: engine.pending or len(engine._handles)):
                await asyncio.sleep(0.001)
            # A shared prompt that was begun is computed to its end, with what is asked next.
            await Client(chat_body("x", temperature=0, max_tokens=20)).run(make_app(serving))
            return engine.free

    assert asyncio.run(run()) == answerer.engine.capacity


def test_a_client_that_leaves_before_its_body_is_there_is_no_fault_of_ours(serve):
    async def run():
        async with serve() as (_, serving):
            client = Client({})
            client._is_read = True  # nothing comes but the end
            client.leave()
            await client.run(make_app(serving))
            return client.sent[0]["status"], serving.num_requests

    assert asyncio.run(run()) == (499, 0)


def test_a_client_that_stays_gets_all(serve, chat_body):
    async def run():
        async with serve() as (_, serving):
            client = Client(chat_body(seed=1, stream=True))
            await client.run(make_app(serving))
            return client.sent

    first, *pieces, last = asyncio.run(run())
    assert first["type"] == "http.response.start" and first["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in first["headers"]
    assert pieces[-1]["body"] == b"data: [DONE]\n\n" and not last["more_body"]
