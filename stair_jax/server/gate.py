"""What each request passes before its route: key, drain, requests at once, size of the body."""

import time
from collections import Counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stair_jax.server.errors import ApiError
from stair_jax.server.keys import Keys
from stair_jax.server.serving import Serving

_DRAIN_SECONDS = 1  # after which another server may have taken over


class Gate:
    """Middleware that lets requests through, or answers them itself; plain ASGI, so streams pass.

    Probes bring no key, and the page asks for one.
    """

    def __init__(self, app: ASGIApp, serving: Serving, keys: Keys | None):
        """A gate before `app`; without `keys` none is needed."""
        self._app, self._serving, self._keys = app, serving, keys
        self._under_way: Counter[int] = Counter()  # by key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            key = self._check(scope)
        except ApiError as error:
            self._serving.metrics.count_request("refused", error.status, 0.0)
            await error.response(scope, receive, send)
            return
        await self._let_through(key, scope, receive, send)

    def _check(self, scope: Scope) -> int:
        """The number of the key that a request brings; raises an ApiError where it may not pass."""
        headers = Headers(scope=scope)
        if is_of_another_site(headers):
            raise ApiError(403, "pages of other sites may not ask this server", code="cross_site")
        key = self._find_key(scope["path"], headers)
        if scope["method"] == "POST":
            self._check_load(key)
        return key

    def _find_key(self, path: str, headers: Headers) -> int:
        if self._keys is None or is_open(path):
            return 0
        key = self._keys.find(headers)
        if key is None:
            raise ApiError(
                401,
                "this server needs an API key: send the header 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return key

    def _check_load(self, key: int) -> None:
        """Raises an ApiError where no more is taken, or no more of this key."""
        serving = self._serving
        if serving.state != "ready":
            wait = {"Retry-After": str(_DRAIN_SECONDS)}
            raise ApiError(503, f"the server is {serving.state}", code=serving.state, headers=wait)
        most = serving.settings.max_requests_per_key
        if most and self._under_way[key] >= most:
            raise ApiError(
                429,
                f"{most} requests of this key are under way, and more may not be",
                code="too_many_requests",
                headers=serving.retry_after,
            )

    async def _let_through(self, key: int, scope: Scope, receive: Receive, send: Send) -> None:
        start, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        is_post = scope["method"] == "POST"
        self._under_way[key] += is_post
        self._serving.num_requests += is_post
        try:
            await self._app(scope, self._limited(scope, receive), noted)
        finally:
            self._under_way[key] -= is_post
            self._serving.num_requests -= is_post
            seconds = time.monotonic() - start
            path = getattr(scope.get("route"), "path", "none")
            self._serving.metrics.count_request(path, status, seconds)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` for a body of limited size; it raises an ApiError where the body is larger."""
        most, size = self._serving.settings.max_body_bytes, 0
        declared = Headers(scope=scope).get("content-length", "")
        is_declared_larger = declared.isascii() and declared.isdigit() and int(declared) > most

        async def limited() -> Message:
            nonlocal size
            if not is_declared_larger:
                message = await receive()
                size += len(message.get("body", b""))
                if size <= most:
                    return message
            raise ApiError(413, f"the body has more than {most} bytes", code="body_too_large")

        return limited


def is_of_another_site(headers: Headers) -> bool:
    """Whether a browser sends a request for a page that is not ours.

    Such a page could use a server that only its reader can reach.
    """
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in ("/", "/health") or path.startswith("/page/")
