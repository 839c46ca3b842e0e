"""From a socket to the end of the server: what is under way at a signal may still be finished."""

import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.server.app import make_app
from stair_jax.server.errors import ApiError
from stair_jax.server.keys import Keys
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings

_BACKLOG = 2048
_SWITCH_SECONDS = 0.0005
_KEEP_SECONDS = 75  # longer than clients keep a connection, so that they close it
_GRACE_SECONDS = 1  # for clients to read why their requests were cut off


def bind(settings: ServerSettings) -> socket.socket:
    """A socket at the address of the settings, which nobody can reach yet.

    Raises:
      UserError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise UserError(
            f"cannot listen at --host={settings.host} --port={settings.port}: {error.strerror}"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """The address of a socket, for people and clients."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(
    serving: Serving,
    keys: Keys | None,
    bound: socket.socket,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """Answers requests until a signal comes, and what is under way is done.

    Args:
      serving: the model; it is closed at the end.
      keys: of clients; None: they need none.
      bound: of `bind`.
      on_ready: called once requests are answered.

    Returns:
      0; or the number of the signal, where something under way was not finished.
    """
    config = uvicorn.Config(
        make_app(serving, keys),
        backlog=_BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=_KEEP_SECONDS,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, serving, on_ready)
    # The engine's thread waits for Python's lock no longer than this, which the event loop has.
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        server.run(sockets=[bound])
    finally:
        serving.close()
    if serving.thread.failure is not None:
        raise serving.thread.failure
    return server.number if server.num_cut else 0


class _Server(uvicorn.Server):
    """Refuses what is new after a first SIGTERM or SIGINT, and ends when nothing is under way.

    A second signal ends it at once, and so does an engine that has failed.

    Attributes:
      number: of the last signal.
      num_cut: requests that were not finished.
    """

    def __init__(self, config: uvicorn.Config, serving: Serving, on_ready: Callable[[], None]):
        """Listens when it is run."""
        super().__init__(config)
        self._serving, self._on_ready = serving, on_ready
        self._deadline = float("inf")
        self.number = self.num_cut = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called at a signal, wherever Python is."""
        self.number = sig
        if self._serving.is_draining:
            self._deadline = min(self._deadline, time.monotonic())
            return
        self._serving.is_draining = True
        self._deadline = time.monotonic() + self._serving.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to end."""
        should_exit = await super().on_tick(counter)
        serving, now = self._serving, time.monotonic()
        if now > self._deadline and not self.num_cut and serving.num_requests:
            self.num_cut = serving.num_requests
            say(f"serve: {self.num_cut} requests were not finished")
            serving.thread.abort(ApiError(503, "the server ends", code="shutting_down"))
        is_over = not serving.num_requests or now > self._deadline + _GRACE_SECONDS
        return (
            should_exit or serving.thread.failure is not None or (serving.is_draining and is_over)
        )
