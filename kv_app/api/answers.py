"""How an answer leaves the node: JSON over plain ASGI, and errors in their one shape."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope, Send

from kv_app import whole_answer
from kv_app.bodies import ErrorBody
from kv_app.errors import (
    InternalError,
    MalformedError,
    MethodNotAllowedError,
    StoreError,
    TooLargeError,
    UnauthorizedError,
    UnknownPathError,
)

_METHODS: Final = ("DELETE", "GET", "HEAD", "POST", "PUT")
_JSON_HEADER = (b"content-type", b"application/json")
encode_json: Final = msgspec.json.Encoder().encode


async def send_ok(scope: Scope, send: Send, body: bytes) -> None:
    """Sends a JSON answer of status 200: in one piece if the server can, else over plain ASGI."""
    if scope["method"] != "HEAD" and whole_answer.send(scope, body):
        return
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [_JSON_HEADER, length]})
    await send({"type": "http.response.body", "body": body})


def error_response(error: StoreError, **defaults: object) -> Response:
    """Returns the answer to a request that failed; ``defaults`` fill in what the error lacks."""
    body, headers = encode_json(error.to_body(**defaults)), _headers_of(error)
    return Response(body, error.http_status, headers, media_type="application/json")


def last_answer(error: StoreError) -> bytes:
    """Returns a whole HTTP/1.1 answer, for a request that never reached the application.

    It announces that the connection ends.
    """
    response, status = error_response(error), HTTPStatus(error.http_status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}".encode(),
        *(name + b": " + value for name, value in response.raw_headers),
        b"connection: close",
        b"",
        bytes(response.body),
    ]
    return b"\r\n".join(lines)


def _headers_of(error: StoreError) -> dict[str, str]:
    """What HTTP wants beside some errors (RFC 9110, 11.6.1 and 15.5.6)."""
    match error:
        case UnauthorizedError():
            return {"WWW-Authenticate": "Bearer"}
        case MethodNotAllowedError():
            return {"Allow": str(error.details["allow"])}
    return {}


def says_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tells if a request says that its body is JSON; a POST has to.

    A browser lets any page send a form, or a text, to a server on this machine.
    """
    return media_type_of(headers) == "application/json"


def media_type_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns what a request says that its body is, without parameters; empty if it does not."""
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    return kind.partition(b";")[0].strip().lower().decode("latin-1")


def not_json() -> MalformedError:
    """Returns the error of a body that does not say that it is JSON."""
    return MalformedError(
        "Send the body with Content-Type: application/json; curl does so with --json."
    )


def document_errors(*errors: type[StoreError]) -> dict[int | str, dict[str, Any]]:
    """Returns what OpenAPI is to say of the errors of a call, grouped by status."""
    documented: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        first_line = (error.__doc__ or "").partition("\n")[0]  # none under python -OO
        text = f"`{error.code}`: {first_line}"
        if error.http_status in documented:
            text = f"{documented[error.http_status]['description']} {text}"
        documented[error.http_status] = {"model": ErrorBody, "description": text}
    return documented


def install_error_handlers(app: FastAPI) -> None:
    """Gives every failure of the application the one error shape."""
    app.add_exception_handler(StoreError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(Exception, _on_error)


async def _on_error(request: Request, error: Exception) -> Response:
    return error_response(_as_store_error(request, error))


def _as_store_error(request: Request, error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    if isinstance(error, HTTPException):
        return _as_known_status(error, request)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        if first["loc"][0] == "body" and not says_json(request.headers.raw):
            return not_json()
        place = ".".join(str(part) for part in first["loc"])
        return MalformedError(f"{place}: {first['msg']}.")
    message = f"{request.method} {request.url.path} met a bug of the node; see its log."
    return InternalError(message)


def _as_known_status(error: HTTPException, request: Request) -> StoreError:
    method, path = request.method, request.url.path
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return UnknownPathError(f"There is no {path} here; see /docs.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{method} is not allowed on {path}; see /docs."
            return MethodNotAllowedError(message, allow=", ".join(_allowed(request)))
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            message = "The body is too large; shorten it or raise MAX_BODY_BYTES."
            return TooLargeError(message, limit="MAX_BODY_BYTES")
    return MalformedError(f"The request cannot be read: {error.detail}.")


def _allowed(request: Request) -> list[str]:
    """Returns the methods that a path takes; the framework would name those of one route alone."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": served_as(method)})[0] is Match.FULL
            for route in routes
        )
    ]


def served_as(method: str) -> str:
    """Returns the method whose answer a method gets: a HEAD that of a GET, without its body."""
    return "GET" if method == "HEAD" else method
