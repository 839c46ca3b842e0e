"""The app: all routes over one served model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from stair_jax.server import (
    chat,
    completions,
    health,
    metrics,
    models,
    responses,
    score,
    tokenizing,
)
from stair_jax.server.errors import add_handlers
from stair_jax.server.gate import Gate
from stair_jax.server.keys import Keys
from stair_jax.server.page import page_router
from stair_jax.server.serving import Serving

_ROUTERS = (
    chat.router,
    completions.router,
    responses.router,
    models.router,
    score.router,
    tokenizing.router,
    health.router,
    metrics.router,
)


def make_app(serving: Serving, keys: Keys | None = None) -> FastAPI:
    """An app that answers by a model.

    Args:
      serving: the model; it is closed when the app ends.
      keys: of clients; None: they need none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        serving.close()

    app = FastAPI(
        title="stair_jax",
        openapi_url=None,  # its pages would load scripts from elsewhere
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics has what counts
        lifespan=lifespan,
    )
    app.state.serving = serving
    add_handlers(app)
    app.add_middleware(Gate, serving=serving, keys=keys)
    for router in (*_ROUTERS, page_router()):
        app.include_router(router)
    return app
