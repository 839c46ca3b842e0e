"""/v1/models: the names that clients may give."""

import time
from typing import Any

from fastapi import APIRouter, Request

from stair_jax.server.errors import ApiError
from stair_jax.server.search_names import model_names
from stair_jax.server.serving import Serving, serving_of

router = APIRouter()
_START = int(time.time())


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All names: the model, and its searches."""
    serving = serving_of(request)
    return {"object": "list", "data": [_entry(serving, name) for name in _names(serving)]}


@router.get("/v1/models/{name:path}")
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    serving = serving_of(request)
    if name not in _names(serving):
        raise ApiError(404, f"there is no model {name!r}", "model", "model_not_found")
    return _entry(serving, name)


def _names(serving: Serving) -> list[str]:
    answerer = serving.answerer
    is_structured = serving.files.is_structured
    return list(model_names(serving.name, serving.defaults, answerer.is_guided, is_structured))


def _entry(serving: Serving, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _START,
        "owned_by": "stair_jax",
        "root": serving.name,
        "max_model_len": serving.max_length,
    }
