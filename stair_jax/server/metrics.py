"""/metrics: what Prometheus reads."""

import asyncio
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stair_jax.server.counters import engine_state
from stair_jax.server.serving import serving_of

router = APIRouter()
_PATIENCE = 2.0  # seconds that a scrape waits for the engine, whose numbers are old otherwise


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All counters, in the text format of Prometheus."""
    serving = serving_of(request)
    if serving.thread.failure is None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                serving.metrics.set_engine(await serving.thread.call(engine_state))
    serving.metrics.set_under_way(serving.num_requests, serving.thread.num_open)
    return Response(generate_latest(serving.metrics.registry), media_type=CONTENT_TYPE_LATEST)
