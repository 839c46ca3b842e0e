"""A process that asks an endpoint is killed again and again (`payments.py`).

The results are, byte for byte, the replies that the endpoint has for these requests.
"""

import json
from pathlib import Path

from soak.endpoint_client import requests, settings
from soak.payments import Attacked, attack
from soak.result import Result
from stair_jax.endpoints.chat import request_body
from stair_jax.testing.fake_endpoint import reply_of

_REQUESTS = 80
RESULTS = "results.jsonl"


def run(size: int, seed: int, folder: Path, count: int = _REQUESTS) -> Result:
    """Kills `size` processes; see `payments.attack`.

    Args:
        size: number of kills.
        seed: of the moments, and of what the endpoint does.
        folder: for ledgers and results.
        count: requests of a run.
    """
    return attack(
        "endpoints", size, seed, folder, lambda endpoint, place: Client(endpoint, place, count)
    )


class Client(Attacked):
    """Starts of `endpoint_client`."""

    LEDGER = "replies.jsonl.gz"

    def command(self) -> list[str]:
        """See `Attacked.command`."""
        files = [str(self.folder / name) for name in (self.LEDGER, RESULTS)]
        return ["soak.endpoint_client", self.endpoint.base_url, *files, str(self.count)]

    def differences(self) -> list[str]:
        """See `Attacked.differences`."""
        is_right = (self.folder / RESULTS).read_text() == self.expected()
        return ["the results are not the endpoint's replies to the requests"] * (not is_right)

    def expected(self) -> str:
        """The results that are right."""
        own = settings(self.endpoint.base_url)
        texts = [
            reply_of(request_body(one, own))["choices"][0]["message"]["content"]
            for one in requests(self.count)
        ]
        rows = [{"id": id, "text": text, "finish": "stop"} for id, text in enumerate(texts)]
        return "".join(f"{json.dumps(row)}\n" for row in rows)
