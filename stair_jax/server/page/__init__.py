"""A page to talk to the model, served beside the API: static files, nothing from elsewhere."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, HTTPException, Request, Response

# No inline script or style, nothing from elsewhere, and in no frame of another page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for anew by its tag: a new version is seen at once
}
_FIRST = "index.html"


class _Asset(NamedTuple):
    body: bytes
    headers: dict[str, str]


def page_router() -> APIRouter:
    """The page at `/`, and what it consists of at `/page/NAME`; no key is needed to read it."""
    assets = _read_assets()
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def page(request: Request) -> Response:
        return _answer(request, assets[_FIRST])

    @router.get("/page/{name}")
    def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise HTTPException(404, f"the page has no file {name!r}")
        return _answer(request, assets[name])

    return router


def _read_assets() -> dict[str, _Asset]:
    found = {}
    for file in files(__package__).joinpath("assets").iterdir():
        kind = file.name.rpartition(".")[2]
        if kind in _TYPES:
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[file.name] = _Asset(body, _HEADERS | {"Content-Type": _TYPES[kind], "ETag": tag})
    return found


def _answer(request: Request, asset: _Asset) -> Response:
    if asset.headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=asset.headers)
    return Response(asset.body, headers=asset.headers)
