"""Errors as RFC 9457 problem documents, with field, value and fix; the client raises the same
exceptions of them again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from vmrunner import errors
from vmrunner.config.fault_words import in_words, written
from vmrunner.config.placed_faults import key_of
from vmrunner.lib import request_names, units
from vmrunner.services.document_types import OneFault, Problem

log = logging.getLogger("vmrunner.server")

MEDIA_TYPE: Final = "application/problem+json"
#: The status of each error, the more special ones first.
_STATUS: Final[tuple[tuple[type[errors.VmrunnerError], int], ...]] = (
    (errors.ConfigError, 422),
    (errors.NotFound, 404),
    (errors.NotFinished, 504),
    (errors.QuotaUsedUp, 429),
    (errors.NotAllowed, 403),
    (errors.NoRoom, 507),
    (errors.Conflict, 409),
    (errors.SandboxOver, 410),
    (errors.Fenced, 409),
    (errors.LedgerError, 503),
    (errors.StoreError, 503),
    (errors.BadOrder, 422),
    (errors.NoCapacity, 503),
    (errors.QuotaExceeded, 503),
    (errors.Throttled, 503),
    (errors.ProviderError, 502),
)
#: What a value is shown as.
Scalar = str | float | bool | None
_SECRET: Final = ("env", "secrets", "password", "token")
_LONGEST: Final = 200  # characters of a value
_READ: Final = 1000  # … of a detail
_HIGHEST: Final = 2.0**53  # a number beyond is another one to many readers
REST_BYTES: Final = 32 << 20  # of a refused body that are read
REST_SECONDS: Final = 10.0  # … and for how long
_LATER: Final = {"Retry-After": "10"}  # seconds
#: Headers of problems that do not bring them.
_HEADERS: Final[Mapping[int, dict[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer"}, 429: _LATER, 503: _LATER,
}  # fmt: skip


class HttpProblem(Exception):
    """An answer that is no success, and no error of the library."""

    def __init__(
        self, status: int, detail: str, *, fix: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fix = fix
        self.headers = dict(headers or {})

    def response(self, sent: Mapping[str, Any] | None = None) -> JSONResponse:
        """`sent`: the values of the request, by name."""
        field = _field(self.detail) if self.status == 422 else ""
        value = _value(sent or {}, field)
        return problem(
            self.status, self.detail, fix=self.fix, field=field, value=value, headers=self.headers
        )


def problem(
    status: int,
    detail: str,
    *,
    fix: str = "",
    error: str = "",
    field: str = "",
    value: Scalar = None,
    more: list[OneFault] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One problem document. `error`: the class of the exception that it was."""
    document: Problem = {
        "type": f"urn:vmrunner:problem:{error or status}",
        "title": _TITLES.get(status, "error"),
        "status": status,
        "detail": _cut(detail),
        "fix": _cut(fix) or None,
        "field": _cut(field) or None,
        "value": value,
        "error": error or None,
    }
    if more:
        document["errors"] = more
    if name := request_names.CURRENT.get():
        document["request_id"] = name
    more_headers = _HEADERS.get(status, {}) | dict(headers or {})
    if name:
        more_headers["X-Request-Id"] = name  # what nobody foresaw passes no middleware of ours
    return JSONResponse(document, status, more_headers, media_type=MEDIA_TYPE)


_TITLES: Final = {
    400: "bad request",
    401: "no valid token",
    403: "not allowed",
    404: "not found",
    405: "no such method",
    408: "too slow",
    409: "conflict",
    411: "no length",
    413: "too large",
    416: "no such range",
    422: "cannot be used",
    429: "quota is used up",
    500: "internal error",
    502: "the provider failed",
    503: "not now",
    504: "not finished",
    507: "no room",
}


def install(app: FastAPI, show: Callable[[Request, JSONResponse], Response]) -> None:
    """Let every error of this application be a problem document, which `show` may show as something
    else."""

    @app.exception_handler(HttpProblem)
    async def _http(request: Request, error: HttpProblem) -> Response:
        if error.status == 413:
            await _discard_rest(request)
        return show(request, error.response(_sent(request, error.detail)))

    @app.exception_handler(errors.VmrunnerError)
    async def _ours(request: Request, error: errors.VmrunnerError) -> Response:
        return show(request, of_error(error, _sent(request, str(error.args[0]))))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return show(request, _of_query(request, error))

    @app.exception_handler(HTTPException)
    async def _starlette(request: Request, error: HTTPException) -> Response:
        headers, detail, fix = dict(error.headers or {}), str(error.detail), ""
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(request))
            detail, fix = f"{request.method} is not for this path", f"one of: {headers['Allow']}"
        elif error.status_code == 404:
            detail, fix = "there is nothing at this path", "/api/v1/openapi.json has all routes"
        return show(request, problem(error.status_code, detail, fix=fix, headers=headers))

    @app.exception_handler(ClientDisconnect)
    async def _left(_: Request, __: ClientDisconnect) -> Response:
        return problem(400, "the body ends before its end")  # its sender has left

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> Response:
        log.error("%s", error, exc_info=error)
        return show(request, problem(500, "it is in the log of the server", error="InternalError"))


async def _discard_rest(request: Request) -> None:
    """Read what a caller still sends of a body that is refused, up to so many bytes and seconds.
    Most clients read no answer before they have sent all, and a connection that is closed with
    unread bytes is reset: they would never see the problem."""
    if "expect" in request.headers:
        return  # it sends nothing before it is told to
    size, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(REST_SECONDS):
            while more and size < REST_BYTES:
                message = await request.receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)


def _sent(request: Request, detail: str) -> Mapping[str, Any]:
    """The values of a request by name: of its path, query and body. Of a name that its query has
    several times, the value that the detail speaks of."""
    query = request.query_params
    words = {
        name: next((word for word in query.getlist(name) if repr(word) in detail), query[name])
        for name in query
    }
    return {**request.path_params, **words, **getattr(request.state, "body", {})}


def _methods(request: Request) -> list[str]:
    """The methods of this path. Starlette knows those of the first route that has it."""
    taken = [
        method
        for method in ("DELETE", "GET", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
    return [*taken, "HEAD"] if "GET" in taken else taken


def of_error(error: errors.VmrunnerError, body: Mapping[str, Any] | None = None) -> JSONResponse:
    """An exception of the library as a problem document. `body`: the request's values, by name."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        log.warning("%s", error)
    more = error.more if isinstance(error, errors.ConfigError) else ()
    field = _field_of(str(error.args[0]), body or {}) if status == 422 else ""
    return problem(
        status,
        str(error.args[0]),
        fix=error.hint,
        error=type(error).__name__,
        field=field,
        value=_value(body or {}, field),
        more=[_fault(fault, body or {}) for fault in (error, *more)] if more else None,
    )


def _fault(error: errors.VmrunnerError, body: Mapping[str, Any]) -> OneFault:
    detail = str(error.args[0])
    field = _field_of(detail, body)
    value = _value(body, field)
    return {"field": _cut(field), "value": value, "detail": _cut(detail), "fix": _cut(error.hint)}


def _cut(text: str) -> str:
    """Return a text that may have what the caller said in it, as far as people read."""
    return text if len(text) <= _READ else f"{text[:_READ]}…"


def _field(detail: str) -> str:
    name, colon, _ = detail.partition(": ")
    return name if colon and " " not in name else ""


def _field_of(detail: str, body: Mapping[str, Any]) -> str:
    """The field as the body spells it."""
    key = key_of(detail)
    return key if key in body else _field(detail)


def _value(body: Mapping[str, Any], field: str) -> Scalar:
    """The caller's value of a field, unless that may be a secret."""
    found: Any = body
    for name in field.split("."):
        found = found.get(name) if isinstance(found, Mapping) and name not in _SECRET else None
    if isinstance(found, str):
        return found[:_LONGEST]
    return found if isinstance(found, int | float) and abs(found) <= _HIGHEST else None


def _of_query(request: Request, error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong with path or query."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    fix = ""
    if first["type"] == "extra_forbidden":
        fix = units.did_you_mean(name, _known(request))
        detail = f"{name}: no such parameter"
    else:
        text, fix = in_words(first)
        missing = first["type"] == "missing"
        detail = f"{name}: {text}" if missing else f"{name}: {written(first['input'])}: {text}"
    query = {name: first.get("input")}
    return problem(422, detail, fix=fix, field=name, value=_value(query, name), error="ConfigError")


def _known(request: Request) -> list[str]:
    route = request.scope.get("route")
    models = (
        [field.field_info.annotation for field in route.dependant.query_params]
        if route is not None
        else []
    )
    return [name for model in models for name in getattr(model, "model_fields", {})]
