"""Browsers: a token, or an identity that an issuer tells, becomes a cookie, for a day's work at
most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qs

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from vmrunner.model import Token, TokenScope
from vmrunner.server import request_bodies
from vmrunner.server.authentication import cookie_name
from vmrunner.server.html import rendered
from vmrunner.server.oidc_login import LASTS as ATTEMPT_LASTS
from vmrunner.server.oidc_login import NOT_BEGUN, LoginAttempt, LoginRefused, OidcLogins
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.common import Parts

if TYPE_CHECKING:
    from vmrunner.config.oidc import LoginIssuer
    from vmrunner.server.dependencies import ServerParts

router = APIRouter(include_in_schema=False)
LASTS: Final = 8 * 3600.0  # seconds
_FORM: Final = 8 * 1024  # bytes
_ATTEMPT: Final = "vmrunner_attempt"
_TARGET: Final = 512  # characters of the page after a login


@router.get("/login")
def show_login(request: Request, parts: Parts) -> Response:
    """Ask who it is: by an issuer, or a token."""
    return _ask(request, parts, _next(request.query_params.get("next", "/")))


def _ask(
    request: Request, parts: ServerParts, target: str, wrong: str = "", status: int = 200
) -> Response:
    names = [issuer.name for issuer in parts.settings().server.login]
    typed = request.method == "POST"  # a token, and it was wrong
    return rendered(
        request, "login.html", status, next=target, wrong=wrong, issuers=names, typed=typed
    )


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
        return _ask(request, parts, target, "That is no valid token.", 401)
    if not token.scopes & {TokenScope.READ, TokenScope.ADMIN}:
        return _ask(request, parts, target, "That token has no scope read.", 403)
    answer = RedirectResponse(target, 303)
    await to_thread.run_sync(_let_in, request, parts, token, answer)
    return answer


def _let_in(request: Request, parts: ServerParts, token: Token, answer: Response) -> None:
    """Make the browser known, by a cookie in this answer."""
    now = parts.now()
    until = min(now + LASTS, token.expires_at or float("inf"))
    answer.set_cookie(
        cookie_name(parts, request.scope),
        parts.ledger.tokens.log_in(token, now, until),
        max_age=int(until - now),
        httponly=True,
        samesite="strict",
        secure=_by_tls(parts),
    )


# --- people at their issuer ----------------------------------------------------------------------


@router.get("/login/{name}")
async def begin(name: str, request: Request, parts: Parts) -> Response:
    """Send a person to the issuer of this name."""
    issuer, url = _issuer(parts, name), parts.settings().server.url
    target = _next(request.query_params.get("next", "/"))
    if request.headers.get("sec-fetch-site") == "cross-site":
        return _ask(
            request, parts, target
        )  # another site begins no login: it could heap up cookies
    attempt = LoginAttempt.new(name, target if len(target) <= _TARGET else "/", parts.now())
    logins = cast("OidcLogins", request.app.state.logins)
    try:
        place = await to_thread.run_sync(
            logins.begin, issuer, attempt, url, limiter=request.app.state.oidc_threads
        )
    except LoginRefused as error:
        return _ask(request, parts, target, str(error), error.status)
    answer = RedirectResponse(place, 303, headers={"Cache-Control": "no-store"})
    # Lax: it comes back from another site.
    answer.set_cookie(
        _attempt_cookie(parts, attempt.state),
        attempt.cookie(),
        max_age=int(ATTEMPT_LASTS),
        httponly=True,
        samesite="lax",
        secure=_by_tls(parts),
    )
    return answer


@router.get("/login/{name}/callback")
async def finish(name: str, request: Request, parts: Parts) -> Response:
    """Let in who comes back from the issuer. The answer is a page that leads on: a browser that
    another site sent shows no cookie that is for this one alone."""
    issuer, url = _issuer(parts, name), parts.settings().server.url
    cookie = _attempt_cookie(parts, request.query_params.get("state", ""))
    attempt = LoginAttempt.of_cookie(request.cookies.get(cookie, ""))
    target = "/" if attempt is None else _next(attempt.target)
    if attempt is None:
        return _ask(request, parts, target, NOT_BEGUN, 403)
    try:
        logins = cast("OidcLogins", request.app.state.logins)
        answered = dict(request.query_params)
        token = await to_thread.run_sync(
            lambda: logins.finish(issuer, attempt, answered, parts.ledger, url, parts.now()),
            limiter=request.app.state.oidc_threads,
        )
        answer = rendered(request, "logged_in.html", next=target)
        await to_thread.run_sync(_let_in, request, parts, token, answer)
    except LoginRefused as error:
        answer = _ask(request, parts, target, str(error), error.status)
    answer.delete_cookie(cookie, secure=_by_tls(parts))
    return answer


def _issuer(parts: ServerParts, name: str) -> LoginIssuer:
    for issuer in parts.settings().server.login:
        if issuer.name == name:
            return issuer
    raise HttpProblem(404, "nobody logs in here by that name", fix="/login shows who does")


def _attempt_cookie(parts: ServerParts, state: str) -> str:
    """Name of an attempt's cookie: each has its own, as tabs have."""
    kept = "".join(char for char in state[:12] if char.isalnum())
    return f"{'__Host-' if _by_tls(parts) else ''}{_ATTEMPT}_{kept}"


def _by_tls(parts: ServerParts) -> bool:
    return parts.settings().server.url.startswith("https://")


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
