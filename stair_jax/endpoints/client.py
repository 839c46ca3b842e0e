"""One call of an endpoint through the `openai` package, and what came of it."""

import asyncio
import email.utils
import importlib
import importlib.util
import math
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from stair_jax.endpoints.chat import Usage
from stair_jax.endpoints.replies import BadReply, Reply, error_of, read_reply
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError

_INSTALL = "pip install -e '.[endpoints]' in the clone"
_LARGEST_FILE = 2**32  # bytes of the results of a batch, which are not held in memory
_NO_KEY = "none"  # openai insists on one; it is not sent
_SHOWN = 200  # characters of what the endpoint says, in a message
_FILTERED = frozenset(("content_filter", "content_policy_violation"))
_TOO_LONG = "context_length_exceeded"
_TOO_LONG_WORDS = ("maximum context length", "longer than the maximum model length")
_NO_MONEY = frozenset(("insufficient_quota", "billing_hard_limit_reached"))
_SERVER_FAULTS = frozenset((408, 409, 425))  # beside all from 500 on
# Names of httpx's errors after which the endpoint has seen nothing of the call.
_NEVER_SENT = frozenset(("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"))


@dataclass(frozen=True)
class RateLimited:
    """The endpoint refused the call for the rate (429).

    Attributes:
      wait: seconds after which it wants to be asked again; None: it does not say.
    """

    wait: float | None


@dataclass(frozen=True)
class Fault:
    """No reply came, by a fault that may pass.

    Attributes:
      why: in words.
      is_paid: whether the endpoint may have done the work all the same.
      wait: as in `RateLimited`.
    """

    why: str
    is_paid: bool
    wait: float | None = None


Outcome = Reply | RateLimited | Fault


class _TooLargeError(Exception):
    """A body is longer than the settings allow."""


def require_openai() -> Any:
    """The module `openai`.

    Raises:
      UserError: it is not installed, or of another major version; says how to install it.
    """
    try:
        module = importlib.import_module("openai")
        version = str(module.__version__)
    except ImportError as error:
        raise UserError(
            "an endpoint is asked through the package openai, which is not installed: install the "
            f"extra endpoints ({_INSTALL})"
        ) from error
    if version.partition(".")[0] != "3":
        raise UserError(
            f"openai {version} is installed, and endpoints need 3.x: install the extra endpoints "
            f"({_INSTALL})"
        )
    return module


class ChatClient:
    """Calls one endpoint; to be made and used in one event loop."""

    def __init__(self, settings: EndpointSettings):
        """A client with the key of the environment.

        Raises:
          UserError: the package or the key is missing.
        """
        self._settings = settings
        self._key = settings.read_key()
        self._openai = require_openai()
        self._http = importlib.import_module("httpx2")  # what openai 3 is built on
        # Compressed, a small body could become one that fills the memory.
        self._headers: dict[str, Any] = {"Accept-Encoding": "identity"}
        if not self._key:
            self._headers["Authorization"] = self._openai.Omit()
        try:
            self._client = self._connect()
        except Exception as error:  # of many kinds: of openai, httpx, the proxy, the certificates
            raise UserError(
                f"{self._host} cannot be called ({self._shown(str(error))}): see base_url, and the "
                "variables of proxies and certificates in the environment"
            ) from error

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ask(self, body: Mapping[str, Any]) -> Outcome:
        """One call.

        Args:
          body: as JSON.

        Raises:
          UserError: the endpoint will not answer, however often it is asked (400, 401, 404, ...).
        """
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        found = await self._call(
            self._client.chat.completions.with_raw_response.create(
                model=body["model"],
                messages=body["messages"],
                extra_body=rest,
                extra_headers=self._headers,
            ),
            self._settings.timeout,
        )
        if isinstance(found, Reply | RateLimited | Fault):
            return found
        try:
            return read_reply(found.content)
        except BadReply as error:
            return Fault(str(error), is_paid=True)

    async def _call(self, sent: Awaitable[Any], seconds: float) -> Any | Outcome:
        """What a call of `openai` returns, or what came of it in its place."""
        try:
            # httpx's time-outs are for each read: a reply that drips would never end.
            async with asyncio.timeout(seconds):
                return await sent
        except self._openai.APIStatusError as error:
            response = error.response
            return self._of_status(response.status_code, response.content, response.headers)
        except TimeoutError:
            return Fault(f"no reply within {seconds:g} s", is_paid=True)
        except (self._openai.OpenAIError, self._http.HTTPError, _TooLargeError, OSError) as error:
            return self._of_transport(error)

    def _connect(self) -> Any:
        seconds = self._settings.timeout
        return self._openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=self._settings.base_url,
            max_retries=0,  # they are ours: counted, throttled, within the cap
            timeout=seconds,
            admin_api_key="",  # or the one of the environment would be taken
            http_client=self._openai.DefaultAsyncHttpxClient(
                timeout=seconds,
                follow_redirects=False,
                event_hooks={"response": [self._limit_body]},
            ),
        )

    async def _limit_body(self, response: Any) -> None:
        """Hook of httpx before a body is read."""
        is_file = response.request.url.path.endswith("/content")
        most = _LARGEST_FILE if is_file else self._settings.max_reply_bytes
        response.stream = _limited(self._http.AsyncByteStream)(response.stream, most)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _TooLargeError("a compressed reply, which was not asked for")

    def _of_transport(self, error: Exception) -> Fault:
        """Of a connection that failed, or a body that was cut or too long."""
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        name = type(cause).__name__
        if isinstance(cause, _TooLargeError):
            return Fault(str(cause), is_paid=True)
        if isinstance(cause, self._http.TimeoutException) and name not in _NEVER_SENT:
            return Fault(f"no reply within {self._settings.timeout:g} s", is_paid=True)
        why = self._shown(str(cause)) or name
        if name in _NEVER_SENT:
            return Fault(f"no connection ({why})", is_paid=False)
        return Fault(f"the connection broke ({why})", is_paid=True)

    def _of_status(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        code, message = error_of(body)
        wait = _retry_after(headers)
        said = f"{status}{': ' if message else ''}{self._shown(message)}"
        if code in _NO_MONEY or status == 402:
            raise UserError(f"{self._host}: the account has no credit left ({said})")
        if status == 429:
            return RateLimited(wait)
        if status >= 500 or status in _SERVER_FAULTS:
            return Fault(said, is_paid=False, wait=wait)
        if code in _FILTERED:
            return Reply("", "content_filter", Usage())
        if code == _TOO_LONG or any(words in message for words in _TOO_LONG_WORDS):
            return Reply("", "too_long", Usage())
        raise UserError(f"{self._host} refuses the call ({said}): {self._advice(status)}")

    @property
    def _host(self) -> str:
        return f"the endpoint {urlsplit(self._settings.base_url).netloc}"

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            name = self._settings.key_variable
            return f"see the key in {name}" if name else "name the key's variable in key_variable"
        if status == 404 or status < 400:
            return "see base_url and model"
        return "see model, sampling, max_tokens_field and extra_body"

    def _shown(self, text: str) -> str:
        """What others wrote, as a part of one line that shows no key."""
        text = text.replace(self._key, "***") if self._key else text
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def _limited(base: Any) -> Any:
    """A stream of bytes, of httpx's class, that raises behind a number of bytes."""

    class Limited(base):  # type: ignore[misc]
        def __init__(self, stream: Any, most: int):
            self._stream, self._left, self._most = stream, most, most

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                self._left -= len(chunk)
                if self._left < 0:
                    raise _TooLargeError(f"a reply of more than {self._most} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Limited


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an endpoint asks to wait; None: it does not say, or nothing that makes sense."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time()) or None
    except (ValueError, TypeError, OverflowError, OSError):
        return None
