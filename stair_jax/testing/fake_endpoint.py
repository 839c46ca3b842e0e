"""An OpenAI-compatible endpoint on loopback that answers by a script.

    with FakeEndpoint(script) as endpoint:
        EndpointSettings(base_url=endpoint.base_url, model="fake", max_requests=100)

Its replies depend on the body alone, so that runs can be compared.
"""

import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from stair_jax.closing import Closing


@dataclass(frozen=True)
class Act:
    """What the server does with one call.

    Attributes:
      status: of HTTP.
      body: bytes or a JSON value; None: the reply of `reply_of`.
      headers: beside those of a JSON body.
      seconds: before the answer.
      hold: waited for before the answer, at most a minute; the client may be gone by then.
      drip: seconds before each byte of the body.
      cut: bytes of the body after which the connection is closed; None: none is missing.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    hold: threading.Event | None = None
    drip: float = 0.0
    cut: int | None = None


Script = Callable[[int, Mapping[str, Any]], Act]


def reply_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat completion of a body: its text is a hash of the body."""
    canonical = json.dumps(body, sort_keys=True)
    text = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    if body.get("top_logprobs"):
        tops = [{"token": f"t{i}", "logprob": -1.0 - i} for i in range(body["top_logprobs"])]
        place = {"token": "t0", "logprob": -1.0, "top_logprobs": tops}
        choice["logprobs"] = {"content": [place]}
    usage = {"prompt_tokens": len(canonical) // 4, "completion_tokens": 4}
    return {"id": "fake", "model": "fake", "choices": [choice], "usage": usage}


class FakeEndpoint(Closing):
    """A server in threads of this process; to be used as a context manager.

    Attributes:
      calls: bodies in the order in which they came.
      headers: of these calls.
      paid: complete replies with status 200, by the canonical JSON of the body.
      under_way: calls that are being answered.
      most_at_once: the largest number of them so far.
    """

    def __init__(self, script: Script | None = None):
        """A server that asks `script(number of the call, body)` what to do; None: to answer."""
        self._script = script or (lambda number, body: Act())
        self.calls: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paid: Counter[str] = Counter()
        self.under_way = self.most_at_once = 0
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

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            act, sent = endpoint.act(body, dict(self.headers)), False
            try:
                time.sleep(act.seconds)
                if act.hold is not None:
                    act.hold.wait(60)
                self._answer(act, reply_of(body) if act.body is None else act.body)
                sent = True
            finally:
                endpoint.end(body, act, sent)

        def _answer(self, act: Act, body: Any) -> None:
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
