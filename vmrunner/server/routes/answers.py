"""Answers of routes, for the OpenAPI document: FastAPI cannot see them, since routes write their
answers themselves. Nothing of this is loaded or checked when a request is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

Answers = dict[int | str, dict[str, Any]]

TEXT: Final = {"type": "string"}
BINARY: Final = {"type": "string", "format": "binary"}
JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
OCTETS: Final = "application/octet-stream"
TAR: Final = "application/x-tar"
SCHEMAS: Final = "#/components/schemas/"


def _header(name: str, description: str, **more: Any) -> dict[str, Any]:
    schema = {"type": "string", **more}
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": schema,
    }


#: Headers of requests.
PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "IdempotencyKey": _header(
        "Idempotency-Key", "The same as `idempotency_key` in the body.", minLength=1, maxLength=255
    ),
    "TraceParent": _header("traceparent", "The parent of the build's trace (W3C)."),
    "IfNoneMatch": _header("If-None-Match", "The ETag of what you have: 304 where it is that."),
    "Range": _header(
        "Range", "One part of the bytes.", pattern="^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"
    ),
    "LastEventId": _header(
        "Last-Event-ID", "The id of the last event that you have.", pattern="^[0-9]{1,18}$"
    ),
}
#: Bodies that routes read by themselves.
BODIES: Final[list[type[BaseModel]]] = []


def named(*names: str) -> dict[str, Any]:
    """The schema of these names of schemas: any one of them."""
    refs: list[dict[str, Any]] = [{"$ref": SCHEMAS + name} for name in names]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def answers(
    *names: str,
    problems: tuple[int, ...] = (),
    status: int = 200,
    described: str = "As asked for",
    headers: tuple[str, ...] = (),
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> Answers:
    """A success with one of these documents, or with what `others` has by media types; and
    problems of these statuses, beside those that follow from what the route takes. `headers`: names
    in `api_document.HEADERS`."""
    content: dict[str, Any] = {JSON: {"schema": named(*names)}} if names else {}
    content |= {media: {"schema": schema} for media, schema in (others or {}).items()}
    success: dict[str, Any] = {"description": described, "content": content}
    if headers:
        success["headers"] = {name: header(name) for name in headers}
    return {status: success, **{problem: {} for problem in problems}}


def polled(*names: str, problems: tuple[int, ...] = ()) -> Answers:
    """The same of what is asked for again and again: 304 where it is as it was."""
    unchanged = {"description": "As it was", "headers": {"ETag": header("ETag")}}
    return answers(*names, problems=problems, headers=("ETag",)) | {304: unchanged}


def header(name: str) -> dict[str, str]:
    """A reference to a described header."""
    return {"$ref": f"#/components/headers/{name}"}


def json_body(
    kind: type[BaseModel], example: Mapping[str, Any], parameters: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A body of JSON that the route reads by itself. `parameters`: names in `PARAMETERS`."""
    if kind not in BODIES:
        BODIES.append(kind)
    content = {"schema": named(kind.__name__), "example": dict(example)}
    required = any(field.is_required() for field in kind.model_fields.values())
    document: dict[str, Any] = {"requestBody": {"required": required, "content": {JSON: content}}}
    if parameters:
        document["parameters"] = [PARAMETERS[name] for name in parameters]
    return document


def octets(*medias: str, required: bool = False) -> dict[str, Any]:
    """A body of bytes."""
    content = {media: {"schema": BINARY} for media in medias}
    return {"requestBody": {"required": required, "content": content}}
