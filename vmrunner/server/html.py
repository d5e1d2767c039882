"""The page: HTML of the same documents that the API gives. Nothing in it comes from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vmrunner.model import Principal, TokenScope
from vmrunner.server import html_times
from vmrunner.server.authentication import VerifiedCaller
from vmrunner.services import people

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
#: No script, style or request but of this server; no frame around it.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_KEPT: Final = ("retry-after", "allow")  # headers of a problem
#: The pages of everybody; those of a token without a label filter; and those of an admin.
_PAGES: Final = (
    ("/overview", "Overview"), ("/", "Builds"), ("/vms", "VMs"), ("/costs", "Costs"),
    ("/caches", "Caches"),
)  # fmt: skip
_WHOLE: Final = (
    ("/pools", "Pools"), ("/nodes", "Nodes"), ("/audit", "Audit"), ("/actions", "Actions"),
)  # fmt: skip
_ADMIN: Final = (("/tokens", "Tokens"),)
#: What goes on in a page by itself: the words of a time, and the clock that they are told by.
_TIME: Final = re.compile(r"(?<=>)[^<]*(?=</time>)| data-now=\"[^\"]*\"")


class PageFiles(StaticFiles):
    """Scripts and styles. A browser asks each time whether they have changed: an upgrade changes
    them, and no name tells."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        answer = super().file_response(*args, **options)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html_times.install(environment)
    return environment


def rendered(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """Return a template as an answer, with what every page has; 304 to a page that asks again
    where only times went on."""
    caller: VerifiedCaller | None = request.scope["state"].get("caller")
    variables: Mapping[str, Any] = {"wrong": "", **_frame(request, caller), **values}
    text = _templates().get_template(name).render(variables)
    etag = f'W/"{hashlib.sha256(_TIME.sub("", text).encode()).hexdigest()[:32]}"'
    headers = _HEADERS | {"ETag": etag}
    if status == 200 and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(text, status, headers=headers)


def of_problem(request: Request, document: JSONResponse) -> Response:
    """Return a problem document, as a page if a browser asked for one. It asks no ledger: that may
    be the problem."""
    is_wanted = (
        "text/html" in request.headers.get("accept", "") and "hx-request" not in request.headers
    )
    is_wanted = is_wanted and request.scope.get("method") == "GET"  # of a WebSocket there is none
    if not is_wanted or request.url.path.startswith("/api/"):
        return document
    problem = json.loads(bytes(document.body))
    text = _templates().get_template("problem.html").render(problem)
    kept = {name: value for name, value in document.headers.items() if name in _KEPT}
    return HTMLResponse(text, document.status_code, headers=kept | dict(_HEADERS))


def is_admin(principal: Principal) -> bool:
    """True if a page shows it what an admin may do."""
    return TokenScope.ADMIN in principal.scopes and not principal.labels


def _frame(request: Request, caller: VerifiedCaller | None) -> dict[str, Any]:
    if caller is None:
        return {}
    principal, parts = caller.principal, request.app.state.parts
    admin = is_admin(principal)
    return {
        "csrf": caller.csrf,
        "cookie": caller.cookie,
        "who": caller.name or people.name(parts.ledger, principal.actor),
        "now": parts.now(),
        "here": request.url.path,
        "section": "/" if request.url.path.startswith("/builds/") else request.url.path,
        "url": f"{request.url.path}?{request.url.query}",
        "pages": _PAGES + (() if principal.labels else _WHOLE) + (_ADMIN if admin else ()),
        "may_admin": admin,
        "may_submit": bool({TokenScope.ADMIN, TokenScope.SUBMIT} & principal.scopes),
        "draining": parts.ledger.paused,
    }
