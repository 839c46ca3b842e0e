"""The batch API of an endpoint: files of requests, batches of them, files of results."""

import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from stair_jax.endpoints.batch_log import Batch
from stair_jax.endpoints.client import ChatClient, Fault, Outcome, RateLimited
from stair_jax.endpoints.replies import BadReply, Reply, error_in, read_json, reply_of
from stair_jax.errors import UserError

_CALLS = "/v1/chat/completions"  # as the API calls it, whatever the address of the endpoint
_WINDOW = "24h"  # within which a batch is done; the API knows no other
_KEY = "stair_jax"  # of the metadata of a batch
_PAGE = 100  # batches of a page, at most
_DAY = 86400  # seconds by which clocks may differ
_FILE_SECONDS = 1800.0  # for a file of requests or of results
_LIMITED = "refused for the rate (429)"
_ENDED = frozenset(("completed", "failed", "expired", "cancelled"))


class Unreachable(Exception):
    """A call failed by a fault that may pass.

    Attributes:
      why: in words.
      wait: seconds after which the endpoint wants to be asked again; None: it does not say.
    """

    def __init__(self, why: str, wait: float | None = None):
        """With its attributes."""
        super().__init__(why)
        self.why, self.wait = why, wait


@dataclass(frozen=True)
class BatchState:
    """What an endpoint says of a batch.

    Attributes:
      status: as the API calls it.
      done: requests with a reply.
      failed: requests without one.
      files: ids of the files of results.
      error: why it failed; "": it does not say.
    """

    status: str
    done: int
    failed: int
    files: tuple[str, ...]
    error: str

    @property
    def is_ended(self) -> bool:
        """Whether nothing of it is under way."""
        return self.status in _ENDED


class BatchClient(ChatClient):
    """Sends batches to one endpoint; to be made and used in one event loop."""

    async def send(self, batch: Batch, lines: bytes) -> str:
        """Uploads requests and has a batch made of them.

        Args:
          batch: of these.
          lines: as `request_line` makes them.

        Returns:
          The id of the batch.

        Raises:
          Unreachable, BadReply: a call failed, and it is not known whether the batch was made.
          UserError: the endpoint will not take it, however often it is asked.
        """
        name, headers = f"{batch.key}.jsonl", {"extra_headers": self._headers}
        files = self._client.files.with_raw_response
        upload = files.create(file=(name, lines), purpose="batch", **headers)
        file = await self._ask(upload, _FILE_SECONDS)
        make = self._client.batches.with_raw_response.create(
            input_file_id=_text(file, "id"),
            endpoint=_CALLS,
            completion_window=_WINDOW,
            metadata={_KEY: batch.key},
            **headers,
        )
        return _text(await self._ask(make), "id")

    async def find(self, batch: Batch) -> str:
        """The id of a batch by its key; "": the endpoint has none of it.

        Raises:
          Unreachable, BadReply, UserError: as `send`.
        """
        place: dict[str, str] = {}
        while True:
            pages = self._client.batches.with_raw_response
            page = await self._ask(pages.list(limit=_PAGE, extra_headers=self._headers, **place))
            rows = _rows(page)
            for row in rows:
                if _section(row, "metadata").get(_KEY) == batch.key:
                    return _text(row, "id")
            # The latest come first.
            if not rows or not page.get("has_more") or _is_before(rows[-1], batch.seconds - _DAY):
                return ""
            last, place = place, {"after": _text(rows[-1], "id")}
            if place == last:
                raise BadReply("the list of batches does not end")

    async def look(self, batch: Batch) -> BatchState:
        """How far a batch is.

        Raises:
          Unreachable, BadReply, UserError: as `send`.
        """
        batches = self._client.batches.with_raw_response
        row = await self._ask(batches.retrieve(batch.id, extra_headers=self._headers))
        counts = _section(row, "request_counts")
        found = (row.get(name) for name in ("output_file_id", "error_file_id"))
        errors = _rows(_section(row, "errors"))
        return BatchState(
            _text(row, "status"),
            _count(counts, "completed"),
            _count(counts, "failed"),
            tuple(id for id in found if isinstance(id, str) and id),
            self._shown(error_in(errors[0])[1]) if errors else "",
        )

    async def download(self, id: str, place: BinaryIO) -> None:
        """Writes a file of results to `place`, from its beginning on.

        Raises:
          Unreachable, BadReply, UserError: as `send`.
        """
        place.seek(0)
        place.truncate()
        files = self._client.files.with_streaming_response

        async def copy() -> None:
            async with files.content(id, extra_headers=self._headers) as response:
                async for chunk in response.iter_bytes():
                    place.write(chunk)

        self._expect(await self._call(copy(), _FILE_SECONDS))
        place.seek(0)

    def outcome(self, line: bytes) -> tuple[str, Reply | Fault | UserError]:
        """(identity of a request, what came of it), from a line of results.

        A UserError is that of `ask`.

        Raises:
          BadReply: the line is none.
        """
        row = read_json(line)
        id, response = _text(row, "custom_id"), row.get("response")
        if not isinstance(response, Mapping):
            code, message = error_in(row)
            return id, Fault(self._shown(f"{code} {message}".strip()), is_paid=False)
        status, body = response.get("status_code"), response.get("body")
        if status != 200 and isinstance(status, int):
            return id, self._of_row(status, json.dumps(body).encode())
        try:
            return id, reply_of(body if isinstance(body, Mapping) else {})
        except BadReply as error:
            return id, Fault(str(error), is_paid=True)

    def _of_row(self, status: int, body: bytes) -> Reply | Fault | UserError:
        try:
            found = self._of_status(status, body, {})
        except UserError as error:
            return error
        return Fault(_LIMITED, is_paid=False) if isinstance(found, RateLimited) else found

    async def _ask(self, sent: Awaitable[Any], seconds: float | None = None) -> Mapping[str, Any]:
        found = self._expect(await self._call(sent, seconds or self._settings.timeout))
        try:
            return read_json(found.content)
        except BadReply as error:
            raise Unreachable(str(error)) from error

    def _expect(self, found: Any | Outcome) -> Any:
        if isinstance(found, RateLimited):
            raise Unreachable(_LIMITED, found.wait)
        if isinstance(found, Fault):
            raise Unreachable(found.why, found.wait)
        if isinstance(found, Reply):
            raise UserError(f"{self._host} refuses the batch: {found.finish}")
        return found


def request_line(identity: str, body: Mapping[str, Any]) -> bytes:
    """The line of a request in a file of requests."""
    row = {"custom_id": identity, "method": "POST", "url": _CALLS, "body": body}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _text(row: Mapping[str, Any], name: str) -> str:
    """A text of a row.

    Raises:
      BadReply: it has none of this name.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise BadReply(f"a reply without {name}")
    return value


def _section(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _rows(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = page.get("data")
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _count(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return value if type(value) is int else 0


def _is_before(row: Mapping[str, Any], seconds: int) -> bool:
    value = row.get("created_at")
    return type(value) is int and value < seconds
