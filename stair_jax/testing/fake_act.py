"""What a fake endpoint does with one call, and what it replies."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
