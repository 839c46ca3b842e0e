"""Errors in the form of OpenAI's API: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stair_jax.errors import UserError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told instead of an answer.

    Attributes:
      status: of HTTP.
      param: the field that is meant.
      code: a short name that programs can look at.
      headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        """An error with a message of one line."""
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """As JSON has it."""
        own = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, own)
        return {
            "error": {
                "message": str(self),
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def response(self) -> JSONResponse:
        """The whole response."""
        return JSONResponse(self.body, self.status, self.headers)


class ClientGoneError(ApiError):
    """The client has closed the connection: nobody reads the response."""

    def __init__(self) -> None:
        super().__init__(499, "the client has gone")


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of any error: of a fault of ours no more than that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, " ".join(str(error).split()))
    return ApiError(500, "the server has failed; its log says how", code="internal_error")


def add_handlers(app: FastAPI) -> None:
    """Makes an app answer all errors in this form."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response

    async def handle_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        about = f"{request.method} {request.url.path}"
        return ApiError(error.status_code, f"{about}: {error.detail}").response

    app.add_exception_handler(ApiError, handle)
    app.add_exception_handler(UserError, handle)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(Exception, handle)
