"""The process that `soak/endpoints.py` kills: asks an endpoint, and writes the replies down.

python -m soak.endpoint_client BASE_URL LEDGER RESULTS COUNT [batches]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from soak.payments import CONCURRENCY
from stair_jax.endpoints.chat import ChatRequest
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import BatchSettings, ChatSampling, EndpointSettings
from stair_jax.storage import write_jsonl

BATCHES = "batches"  # an argument: requests go in batches
_BATCH = BatchSettings(size=25, gather_seconds=0.02, poll_seconds=0.02)


def settings(base_url: str, in_batches: bool = False) -> EndpointSettings:
    """Settings of the endpoint, with short waits; each call has a body of its own."""
    return EndpointSettings(
        base_url=base_url,
        model="fake",
        max_requests=10**6,
        concurrency=CONCURRENCY,
        retry_seconds=0.01,
        tries=20,
        batch=_BATCH if in_batches else BatchSettings(),
        sampling=ChatSampling(max_tokens=64, seed=0),
    )


def requests(count: int) -> list[ChatRequest]:
    """Requests, two samples for each text."""
    return [
        ChatRequest(i, ({"role": "user", "content": f"text {i // 2}"},), sample=i % 2)
        for i in range(count)
    ]


def main(arguments: Sequence[str]) -> None:
    """Asks for everything; the rows of the results are in the order of the requests."""
    base_url, ledger, results, count, *how = arguments
    with EndpointService(settings(base_url, BATCHES in how), Path(ledger)) as service:
        service.submit(requests(int(count)))
        texts = {}
        while service.pending:
            for completion in service.step(wait=1.0):
                texts[completion.id] = (completion.text, completion.finish)
    rows = [{"id": id, "text": text, "finish": finish} for id, (text, finish) in texts.items()]
    write_jsonl(results, sorted(rows, key=lambda row: row["id"]))


if __name__ == "__main__":
    main(sys.argv[1:])
