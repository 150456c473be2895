"""How an answer leaves the node: JSON over plain ASGI, and errors in their one shape."""

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from kv_app.errors import (
    InternalError,
    MalformedError,
    MethodNotAllowedError,
    StoreError,
    UnknownPathError,
)
from kv_app.messages import ErrorBody

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON_HEADER = (b"content-type", b"application/json")
encode_json: Final = msgspec.json.Encoder().encode


async def send_json(send: Send, status: int, body: bytes) -> None:
    """Sends a JSON answer over plain ASGI."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON_HEADER, length]})
    await send({"type": "http.response.body", "body": body})


def error_response(error: StoreError) -> Response:
    """Returns the answer to a request that failed."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None  # noqa: PLR2004
    return Response(
        encode_json(error.to_body()), error.http_status, headers, media_type="application/json"
    )


def document_errors(*errors: type[StoreError]) -> dict[int | str, dict[str, Any]]:
    """Returns what OpenAPI is to say of the errors of a call, grouped by status."""
    documented: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        text = f"`{error.code}`: {(error.__doc__ or '').splitlines()[0]}"
        if error.http_status in documented:
            text = f"{documented[error.http_status]['description']} {text}"
        documented[error.http_status] = {"model": ErrorBody, "description": text}
    return documented


def install_error_handlers(app: FastAPI) -> None:
    """Gives every failure of the application the one error shape."""

    async def on_store_error(_: Request, error: Exception) -> Response:
        if not isinstance(error, StoreError):
            raise error
        return error_response(error)

    async def on_invalid_request(_: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error_response(MalformedError(f"{place}: {first['msg']}."))

    async def on_http_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        path = request.url.path
        if error.status_code == HTTPStatus.NOT_FOUND:
            return error_response(UnknownPathError(f"There is no {path} here; see /docs."))
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{request.method} is not allowed on {path}; see /docs."
            return error_response(MethodNotAllowedError(message))
        return error_response(MalformedError(f"The request cannot be read: {error.detail}."))

    async def on_bug(request: Request, _: Exception) -> Response:
        message = f"{request.method} {request.url.path} met a bug of the node; see its log."
        return error_response(InternalError(message))

    app.add_exception_handler(StoreError, on_store_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_bug)
