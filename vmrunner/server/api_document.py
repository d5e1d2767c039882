"""The OpenAPI document: what FastAPI sees of the routes, with the answers, bodies and problems that
it cannot see. `python -m vmrunner.server.api_document` writes it to a file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, APIWebSocketRoute

from vmrunner.model import TokenScope
from vmrunner.server import document_examples, parameter_texts, problems
from vmrunner.server.routes import (
    answers,
    artifacts,
    builds,
    caches,
    costs,
    instances,
    log_windows,
    logs,
    operations,
    ports,
    sandboxes,
    sources,
    terminals,
    token,
)
from vmrunner.server.routes.common import QUERY_READ
from vmrunner.services import document_schemas

API: Final = "/api/v1"
_METHODS: Final = ("get", "put", "post", "delete")
_ROUTERS: Final = (
    builds.router, sandboxes.router, logs.router, log_windows.router, artifacts.router,
    sources.router, instances.router, caches.router, operations.router, costs.router, token.router,
)  # fmt: skip
_TAGS: Final[Mapping[str, str]] = {
    "builds": "Builds: submitted, listed, shown, ended.",
    "logs": "Logs and events of builds: as bytes, as lines, and as they come.",
    "artifacts": "Files that builds brought back.",
    "sources": "Uploads of what builds work on.",
    "sandboxes": "VMs in which commands are run one by one, and their files.",
    "instances": "The VMs behind builds.",
    "caches": "Directories that builds left to later ones.",
    "costs": "What builds and VMs have cost.",
    "operations": "What concerns everybody: pools, nodes, audit, reaping.",
    "tokens": "Tokens for the identities of CI systems.",
}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", **more}}


#: Headers of answers.
HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "X-Request-Id": _text("The request's name in the server's log: yours, or one made for it."),
    "Retry-After": {
        "description": "Seconds after which to try again.", "schema": {"type": "integer"},
    },
    "Location": _text("The path of what was made."),
    "ETag": _text("The name of this very answer, for If-None-Match."),
    "WWW-Authenticate": _text("Bearer"),
    "Accept-Ranges": _text("bytes"),
    "Content-Range": _text("The part of the whole that this is: bytes FIRST-LAST/SIZE."),
    "Content-Disposition": _text("A name for the file."),
}  # fmt: skip


#: Problems by their statuses, in words.
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "The body is none, or not whole",
    401: "No valid token",
    403: "The token may not do that",
    404: "There is none, or it is another tenant's",
    408: "The body came too slowly",
    409: "A state that does not allow it, or a name that means several",
    410: "The sandbox is over",
    413: "The body is too large",
    416: "There is no such part",
    422: "The body or a parameter cannot be used",
    429: "The token has all that it may have at once: try again later",
    502: "The provider failed",
    503: "Not now: try again later",
    504: "It was not done in time",
    507: "The server has no room for it",
}


def include(app: FastAPI) -> None:
    """Give the application the routes of the API, and its document."""
    app.router.default_response_class = Response  # what routes answer is told by `answers`
    for router in _ROUTERS:
        app.include_router(
            router, prefix=API, default_response_class=Response, dependencies=[QUERY_READ]
        )
    app.openapi = lambda: document(app)  # type: ignore[method-assign]


def short_name(route: APIRoute) -> str:
    """The name of an operation: its function's."""
    return route.name


def document(app: FastAPI) -> dict[str, Any]:
    """The document of these routes, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="vmrunner",
            version=version("vmrunner"),
            description="One fresh virtual machine per build, nothing left behind. Durations are "
            "seconds, sizes bytes, times RFC 3339 in UTC, costs USD.",
            routes=app.routes,
            servers=[{"url": "/", "description": "The server that you ask"}],
            tags=[{"name": tag, "description": text} for tag, text in _TAGS.items()],
            contact={"name": "vmrunner"},
            license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        )
        for path, operation in _operations(made):
            parameter_texts.describe(operation)
            _complete(path, operation)
        del made["components"]  # of FastAPI's own 422
        made["components"] = _components(made)
        made["security"] = [{"token": []}]
        made["x-websockets"] = {API + route.path: text for route, text in _websockets()}
        app.openapi_schema = made
    return app.openapi_schema


def _operations(made: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in made["paths"].items():
        yield from ((path, item[method]) for method in _METHODS if method in item)


def _websockets() -> Iterator[tuple[APIWebSocketRoute, dict[str, str]]]:
    """WebSockets, for which OpenAPI has no words. As an operation each would be a function of
    generated clients that is always refused, and without a success."""
    for part in (terminals, ports):
        for route in part.router.routes:
            if isinstance(route, APIWebSocketRoute):
                yield (
                    route,
                    {
                        "operationId": route.name,
                        "description": route.endpoint.__doc__ or "",
                        "subprotocol": part.PROTOCOL,
                        "frames": part.FRAMES,
                        "scope": TokenScope.ENTER.value,
                    },
                )


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Tell of an operation what follows from what it takes and answers."""
    answered = operation["responses"]
    answered.pop("422", None)  # FastAPI's own, which is none of ours
    content = operation.get("requestBody", {}).get("content", {})
    parameters = operation.setdefault("parameters", [])
    if "304" in answered:
        parameters.append(answers.PARAMETERS["IfNoneMatch"])
    if "416" in answered:
        parameters.append(answers.PARAMETERS["Range"])
    if any(answers.STREAM in answer.get("content", {}) for answer in answered.values()):
        parameters.append(answers.PARAMETERS["LastEventId"])
    statuses = {int(status) for status in answered if "content" not in answered[status]} - {304}
    if path == f"{API}/token":
        operation["security"] = []
        statuses |= {401, 403}
    else:
        statuses |= {401, 403, 404}
    statuses |= {422, 503} | ({400, 408, 413, 429} if content else set())
    for status in sorted(statuses):
        answered[str(status)] = _problem(_PROBLEMS[status], status)
    answered["default"] = _problem("Another problem")
    for answer in answered.values():
        answer.setdefault("headers", {})["X-Request-Id"] = answers.header("X-Request-Id")
    operation["responses"] = dict(sorted(answered.items()))


def _problem(description: str, status: int = 0) -> dict[str, Any]:
    schema = {"schema": answers.named("Problem")}
    answer = {"description": description, "content": {problems.MEDIA_TYPE: schema}}
    names = {401: "WWW-Authenticate", 416: "Content-Range", 429: "Retry-After", 503: "Retry-After"}
    name = names.get(status)
    return answer if name is None else answer | {"headers": {name: answers.header(name)}}


def _components(made: Mapping[str, Any]) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for kind in answers.BODIES:
        schema = kind.model_json_schema(ref_template=answers.SCHEMAS + "{model}")
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    for name, schema in list(schemas.items()):
        _lift(name, schema, schemas)
    for schema in schemas.values():
        _tell_defaults(schema)
    words = set(re.findall(rf'"{answers.SCHEMAS}(\w+)"', json.dumps(made)))
    schemas |= document_schemas.components((words | {"Problem"}) - set(schemas), answers.SCHEMAS)
    problem = schemas["Problem"]
    problem["properties"]["errors"]["items"] = document_schemas.untitled(
        schemas.pop("OneFault")
    )  # stands alone
    for name, example in document_examples.EXAMPLES.items():
        schemas[name]["examples"] = [example]
    return {
        "schemas": {name: document_schemas.untitled(schemas[name]) for name in sorted(schemas)},
        "headers": HEADERS,
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "`vmrunner token create` makes one, `POST /token` too.",
            }
        },
    }


def _lift(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give the table among the forms of a value a name of its own: no generator can name it."""
    for form in schema.get("anyOf", []):
        if "properties" in form:
            table = name.removeprefix("Job") + "Table"
            schemas[table] = {**form, "title": table}
            form.clear()
            form["$ref"] = answers.SCHEMAS + table


def _tell_defaults(schema: dict[str, Any]) -> None:
    """Tell the defaults of what is sent in words: to some generators a field with one is always
    there, and so must be sent."""
    for field in schema.get("properties", {}).values():
        default = field.pop("default", None)
        if default not in (None, "", [], {}):
            text = f"Default: {json.dumps(default)}."
            field["description"] = " ".join(filter(None, [field.get("description"), text]))


def text() -> str:
    """The document as a file has it."""
    app = FastAPI(generate_unique_id_function=short_name)
    include(app)
    return json.dumps(document(app), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
