"""The report over a local port: the same page, which asks for what it shows, one row at a time."""

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from stair_jax.errors import UserError
from stair_jax.reports.html.contents import PARTS, Contents
from stair_jax.reports.html.page import Assets, page, read_assets
from stair_jax.reports.html.parts import encode_text, to_json

HOST = "127.0.0.1"
_DATA = "/data/"
_FRESH = ("stages/", "curves/")  # blocks that are read each time: a run may be under way


class LiveBlocks:
    """The blocks of runs by name; lists are made once, all else each time it is asked for."""

    def __init__(self, contents: Contents):
        """Nothing is read yet."""
        self._contents = contents
        self._makers = contents.blocks()
        self._kept: dict[str, str] = {}
        self._lock = threading.Lock()

    def head(self) -> str:
        """The JSON of the head."""
        with self._lock:
            return self._keep("head", lambda: self._contents.head([], live=True))

    def read(self, name: str) -> str | None:
        """The JSON of a block; None: there is no such block.

        Raises:
          UserError: a file is damaged, or was changed meanwhile.
        """
        if name == "head":
            return self.head()
        with self._lock:  # what makes lists is no code for several threads
            if name in self._makers:
                make = self._makers[name]
                return to_json(make()) if name.startswith(_FRESH) else self._keep(name, make)
            part, *numbers = name.split("/")
            return self._of_part(part, numbers) if part in PARTS else None

    def _of_part(self, name: str, numbers: list[str]) -> str | None:
        """The list of a part, or the texts of one of its rows."""
        places = [int(number) for number in numbers if number.isdecimal() and len(number) < 18]
        if len(places) != len(numbers) or not 1 <= len(places) <= 2:
            return None
        if places[0] >= len(self._contents.runs):
            return None
        part = self._contents.runs[places[0]].parts[name]
        if len(places) == 1:
            return self._keep(f"{name}/{places[0]}", part.live_block)
        return to_json([part.read(places[1])]) if places[1] < len(part) else None

    def _keep(self, name: str, make: Callable[[], Any]) -> str:
        if name not in self._kept:
            self._kept[name] = to_json(make())
        return self._kept[name]


class ReportServer(ThreadingHTTPServer):
    """Serves the page at `/` and its blocks at `/data/NAME`, to programs of this machine."""

    daemon_threads = True

    def __init__(self, contents: Contents, port: int):
        """Listens.

        Args:
          contents: that are shown.
          port: of 127.0.0.1; 0: any that is free.

        Raises:
          UserError: the port cannot be had.
        """
        self.blocks = LiveBlocks(contents)
        self.assets: Assets = read_assets()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port={port}: {error.strerror or error}: name another one, or 0 for any"
            ) from error

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says a fault of ours; a browser that has gone is none."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = 60.0  # seconds that a browser has for its request

    def do_GET(self) -> None:
        """The page, or the JSON of a block."""
        server = cast(ReportServer, self.server)
        if not self._is_from_here():
            self._answer(403, "text/plain", "this address is for a browser on this machine alone\n")
            return
        path = self.path.partition("?")[0]
        try:
            if path == "/":
                blocks = [("head", encode_text(server.blocks.head()))]
                self._answer(200, "text/html", "".join(page(server.assets, blocks, live=True)))
                return
            text = server.blocks.read(path.removeprefix(_DATA)) if path.startswith(_DATA) else None
        except UserError as error:
            self._answer(500, "text/plain", f"{error}\n")
            return
        if text is None:
            self._answer(404, "text/plain", "there is nothing here\n")
        else:
            self._answer(200, "application/json", text)

    def _is_from_here(self) -> bool:
        """Whether the request names this machine: no other name may be made to point here."""
        port = cast(ReportServer, self.server).server_address[1]
        return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if kind == "text/html":
            policy = cast(ReportServer, self.server).assets.policy(live=True)
            self.send_header("Content-Security-Policy", f"{policy}; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: requests are of no interest to whoever looks at a run."""
