"""Files and batches of a fake endpoint, as OpenAI's batch API has them."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.message import Message
from typing import Any

from stair_jax.testing.fake_act import Act, reply_of

# What happens to a call: its name, such as "POST batches", and how many of this name came before.
BatchScript = Callable[[str, int], Act | None]


@dataclass
class FakeBatches:
    """What a fake endpoint has of files and batches.

    A call with a script's `Act` of another status than 200 has no effect; one that is held or cut
    has its effect all the same. Names are "POST files", "POST batches", "GET batches" (the list),
    "GET batch", "GET content".

    Attributes:
      ask: what becomes of a request of a batch.
      script: what happens to calls; None: what is asked.
      polls: looks at a batch, each of which says "in_progress", before its end.
      most_rows: requests of a batch that are done, the others expire; None: all.
      status: of a batch at its end; "": "completed", or "expired" where some of it did.
      page: batches of a page of the list.
      files: contents by id.
      batches: by id, the oldest first.
      calls: names of the calls, in order.
    """

    ask: Callable[[Mapping[str, Any]], Act]
    script: BatchScript = lambda name, number: None
    polls: int = 1
    most_rows: int | None = None
    status: str = ""
    page: int = 100
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    _looks: dict[str, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def serve(self, method: str, path: str, data: bytes, headers: "Message[str, str]") -> Act:
        """What is answered to a call; `path` begins behind the address of the endpoint."""
        parts = path.partition("?")[0].strip("/").split("/")
        name = f"{method} {parts[-1] if len(parts) != 2 else 'batch'}"
        with self._lock:
            act = self.script(name, self.calls.count(name)) or Act()
            self.calls.append(name)
            if act.status != 200:
                return act
            if name == "POST files":
                body: Any = self._upload(data, headers)
            elif name == "POST batches":
                body = self._make(json.loads(data))
            elif name == "GET batches":
                body = self._list(path)
            elif name == "GET batch":
                body = self._look(parts[1])
            else:
                body = self.files[parts[1]]
        return replace(act, body=body) if act.body is None else act

    def _upload(self, data: bytes, headers: "Message[str, str]") -> dict[str, Any]:
        kind = headers["Content-Type"].encode()
        form = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + data)
        parts = [part for part in form.walk() if part.get_filename()]
        content = parts[0].get_payload(decode=True)
        assert isinstance(content, bytes)
        return {"id": self._file(content)}

    def _file(self, content: bytes) -> str:
        id = f"file-{len(self.files)}"
        self.files[id] = content
        return id

    def _make(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Does the requests of a batch at once; what is said of it is that it takes its time."""
        lines = self.files[asked["input_file_id"]].splitlines()
        count = len(lines) if self.most_rows is None else self.most_rows
        rows = [self._row(json.loads(line)) for line in lines[:count]]
        late = {"code": "batch_expired", "message": "too late"}
        expired = [json.loads(line)["custom_id"] for line in lines[count:]]
        good = [row for row, is_done in rows if is_done]
        bad = [row for row, is_done in rows if not is_done]
        bad += [_line({"custom_id": id, "response": None, "error": late}) for id in expired]
        number = len(self.batches)
        batch = {
            "id": f"batch-{number}",
            "created_at": 2**31 + number,
            "metadata": asked["metadata"],
            "status": self.status or ("expired" if expired else "completed"),
            "request_counts": {"total": len(lines), "completed": len(good), "failed": len(bad)},
            "output_file_id": self._file(b"".join(good)) if good else None,
            "error_file_id": self._file(b"".join(bad)) if bad else None,
        }
        self.batches[batch["id"]] = batch
        return batch

    def _row(self, asked: Mapping[str, Any]) -> tuple[bytes, bool]:
        """The line of a request's result, and whether it is a reply."""
        act = self.ask(asked["body"])
        body = reply_of(asked["body"]) if act.body is None else act.body
        response = {"status_code": act.status, "body": body}
        line = _line({"custom_id": asked["custom_id"], "response": response, "error": None})
        return line if act.cut is None else line[: act.cut] + b"\n", act.status == 200

    def _list(self, path: str) -> dict[str, Any]:
        ids = list(reversed(self.batches))
        after = path.partition("after=")[2].partition("&")[0]
        start = ids.index(after) + 1 if after else 0
        page = ids[start : start + self.page]
        rows = [self.batches[id] for id in page]
        return {"object": "list", "data": rows, "has_more": start + len(page) < len(ids)}

    def _look(self, id: str) -> dict[str, Any]:
        self._looks[id] = self._looks.get(id, 0) + 1
        if self._looks[id] > self.polls:
            return self.batches[id]
        counts = self.batches[id]["request_counts"] | {"completed": self._looks[id] - 1}
        hidden = {"output_file_id": None, "error_file_id": None}
        return self.batches[id] | hidden | {"status": "in_progress", "request_counts": counts}


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
