"""Answers over HTTP, held against the OpenAPI document: the status by its number, the media type,
and each field of what is JSON."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs
from fastapi import FastAPI

from tests.support.documents import closed
from vmrunner.server import api_document

#: Answers of any route, whatever it does: another method, and what nobody foresaw.
ANYWHERE = {405, 500}


@cache
def document() -> dict[str, Any]:
    app = FastAPI(generate_unique_id_function=api_document.short_name)
    api_document.include(app)
    return api_document.document(app)


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Paths of the document, those without parameters first."""
    found = sorted(document()["paths"].items(), key=lambda item: item[0].count("{"))
    return [(re.compile(_pattern(path)), item) for path, item in found]


def _pattern(path: str) -> str:
    return re.sub(r"\{\w+\}", "[^/]+", path.replace("{path}", ".+"))


def operation(method: str, path: str) -> dict[str, Any] | None:
    """What the document has of a request; None: it is none of the API's."""
    for pattern, item in _paths():
        if pattern.fullmatch(path):
            found: dict[str, Any] | None = item.get("get" if method == "HEAD" else method.lower())
            return found
    return None


@cache
def _validator(name: str) -> jsonschema_rs.Validator:
    schema = {
        "$ref": f"#/components/schemas/{name}",
        "components": closed(document()["components"]),
    }
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def check(answer: httpx2.Response) -> None:
    """An event hook of a client."""
    request = answer.request
    found = operation(request.method, request.url.raw_path.decode().partition("?")[0])
    if found is None or answer.status_code in ANYWHERE:
        return
    where = f"{request.method} {request.url.path}: {answer.status_code}"
    described = found["responses"].get(str(answer.status_code))
    assert described is not None, f"{where} is not in the document: {answer.read()[:300]!r}"
    assert "x-request-id" in answer.headers, where
    media = answer.headers.get("content-type", "").partition(";")[0]
    if request.method == "HEAD" or answer.status_code == 304:
        return
    assert media in described["content"], f"{where}: {media}"
    for name in set(described["headers"]) - ({"Accept-Ranges"} if "stream" in media else set()):
        assert name.lower() in answer.headers or name == "Location", f"{where} without {name}"
    if media.endswith("json"):
        answer.read()
        schema = described["content"][media]["schema"]
        names = [item["$ref"].rpartition("/")[2] for item in schema.get("anyOf", [schema])]
        faults = [next(_validator(name).iter_errors(answer.json()), None) for name in names]
        assert None in faults, f"{where}: {faults}"
