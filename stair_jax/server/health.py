"""/health: whether the server answers; for probes, which bring no key."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from stair_jax.server.serving import serving_of

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> Response:
    """Status 200 where requests are answered, else 503 with the reason."""
    state = serving_of(request).state
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)
