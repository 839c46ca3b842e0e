"""An OpenAI-compatible endpoint on loopback that answers by a script.

    with FakeEndpoint(script) as endpoint:
        EndpointSettings(base_url=endpoint.base_url, model="fake", max_requests=100)

Its replies depend on the body alone, so that runs can be compared.
"""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from stair_jax.closing import Closing
from stair_jax.testing.fake_act import Act, reply_of
from stair_jax.testing.fake_batches import FakeBatches

__all__ = ["Act", "FakeEndpoint", "Script", "reply_of"]


Script = Callable[[int, Mapping[str, Any]], Act]


class FakeEndpoint(Closing):
    """A server in threads of this process; to be used as a context manager.

    Attributes:
      calls: bodies in the order in which they came.
      headers: of these calls.
      paid: complete replies with status 200, by the canonical JSON of the body.
      under_way: calls that are being answered.
      most_at_once: the largest number of them so far.
      batches: its batch API, whose requests count as calls too.
    """

    def __init__(self, script: Script | None = None):
        """A server that asks `script(number of the call, body)` what to do; None: to answer."""
        self._script = script or (lambda number, body: Act())
        self.calls: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paid: Counter[str] = Counter()
        self.under_way = self.most_at_once = 0
        self.batches = FakeBatches(self._of_batch)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    @property
    def base_url(self) -> str:
        """What `EndpointSettings.base_url` takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        """Starts the server."""
        serve = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        serve.start()
        return self

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()

    def act(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Act:
        """Counts a call, and asks the script."""
        with self._lock:
            number = len(self.calls)
            self.calls.append(body)
            self.headers.append(headers)
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        return self._script(number, body)

    def end(self, body: Mapping[str, Any], act: Act, sent: bool) -> None:
        """Counts what became of a call."""
        with self._lock:
            self.under_way -= 1
            if sent and act.status == 200 and act.cut is None:
                self.paid[json.dumps(body, sort_keys=True)] += 1

    def _of_batch(self, body: Mapping[str, Any]) -> Act:
        act = self.act(body, {})
        self.end(body, act, sent=True)
        return act


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that is killed leaves connections open
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that go away are part of the tests."""


def _handler(endpoint: FakeEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def do_GET(self) -> None:
            self._serve_batches(b"")

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.path.endswith("/chat/completions"):
                self._serve_batches(data)
                return
            body = json.loads(data)
            act, sent = endpoint.act(body, dict(self.headers)), False
            try:
                self._answer(act, reply_of(body) if act.body is None else act.body)
                sent = True
            finally:
                endpoint.end(body, act, sent)

        def _serve_batches(self, data: bytes) -> None:
            path = self.path.partition("/v1/")[2]
            act = endpoint.batches.serve(self.command, path, data, self.headers)
            self._answer(act, act.body)

        def _answer(self, act: Act, body: Any) -> None:
            time.sleep(act.seconds)
            if act.hold is not None:
                act.hold.wait(60)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(act.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in act.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for part in [data[: act.cut]] if not act.drip else (bytes([byte]) for byte in data):
                time.sleep(act.drip)
                self.wfile.write(part)
            self.close_connection |= act.cut is not None

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler
