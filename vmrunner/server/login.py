"""Browsers: a token becomes a cookie, for a day's work at most."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from vmrunner.model import TokenScope
from vmrunner.server import request_bodies
from vmrunner.server.authentication import cookie_name
from vmrunner.server.html import rendered
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.common import Parts

router = APIRouter(include_in_schema=False)
LASTS: Final = 8 * 3600.0  # seconds
_FORM: Final = 8 * 1024  # bytes


@router.get("/login")
def show_login(request: Request) -> Response:
    """Ask for a token."""
    return rendered(request, "login.html", next=_next(request.query_params.get("next", "/")))


@router.post("/login")
async def log_in(request: Request, parts: Parts) -> Response:
    """Take a token, give a cookie."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HttpProblem(403, "the form is not of this server")
    form = parse_qs((await request_bodies.whole(request, _FORM)).decode("utf-8", "replace"))
    secret, target = form.get("token", [""])[0].strip(), _next(form.get("next", ["/"])[0])
    tokens, now = parts.ledger.tokens, parts.now()
    token = await to_thread.run_sync(tokens.of_secret, secret) if secret else None
    if token is None or not token.valid(now):
        return rendered(request, "login.html", 401, next=target, wrong="That is no valid token.")
    if not token.scopes & {TokenScope.READ, TokenScope.ADMIN}:
        wrong = "That token has no scope read."
        return rendered(request, "login.html", 403, next=target, wrong=wrong)
    until = min(now + LASTS, token.expires_at or float("inf"))
    cookie = await to_thread.run_sync(tokens.log_in, token, now, until)
    answer = RedirectResponse(target, 303)
    answer.set_cookie(
        cookie_name(parts, request.scope),
        cookie,
        max_age=int(until - now),
        httponly=True,
        samesite="strict",
        secure=parts.settings().server.url.startswith("https://"),
    )
    return answer


@router.post("/logout")
def log_out(request: Request, parts: Parts) -> Response:
    """Forget the browser."""
    name = cookie_name(parts, request.scope)
    if cookie := request.cookies.get(name):
        parts.ledger.tokens.log_out(cookie)
    answer = JSONResponse({})
    answer.delete_cookie(name, secure=name.startswith("__Host-"))
    return answer


def _next(target: str) -> str:
    """The page after the login: a path of this server, whatever was asked for."""
    local = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if local and target.isprintable() else "/"
