"""Authentication before the first byte of a body: bearer tokens, and cookies of browsers that
showed one."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, cookie_parser

from vmrunner.errors import LedgerError
from vmrunner.model import Principal, TokenScope
from vmrunner.server.problems import HttpProblem, of_error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from vmrunner.server.dependencies import ServerParts

_COOKIE: Final = "vmrunner_login"
CSRF: Final = "x-csrf-token"
#: Paths that need no token; those that end in a slash with all below them.
OPEN: Final = (
    "/healthz", "/api/v1/token", "/api/v1/openapi.json", "/login", "/login/", "/static/",
)  # fmt: skip
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
WEBSOCKET: Final = "WebSocket"  # in place of a method
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class VerifiedCaller:
    """A verified request: who, and with which credential, to verify it again. `csrf`: of a
    browser's; `name`: of its token, for people."""

    principal: Principal
    credential: str
    cookie: bool = False
    csrf: str = ""
    name: str = ""


class Authentication:
    """ASGI middleware: no request that is not verified reaches a route, but open ones."""

    def __init__(
        self, app: ASGIApp, parts: ServerParts, *, everybody: Principal | None = None
    ) -> None:
        """`everybody`: as whom all are taken, without a token; for a loopback address alone."""
        self._app = app
        self._parts = parts
        self._everybody = everybody

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["caller"] = await self._verified(scope)
        except HttpProblem as error:
            await error.response()(scope, receive, send)
            return
        except LedgerError as error:  # no handler of the application sees what is raised here
            await of_error(error)(scope, receive, send)
            return
        scope["state"]["authentication"] = self
        await self._app(scope, receive, send)

    async def _verified(self, scope: Scope) -> VerifiedCaller | None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise HttpProblem(404, "nothing is named with a NUL character")
        headers = Headers(scope=scope)
        if self._everybody is not None:
            refuse_foreign(headers)
            return VerifiedCaller(self._everybody, "")
        if _open(scope["path"]):
            return None
        credential, cookie = _credential(headers, cookie_name(self._parts, scope))
        caller = await self.verify(credential, cookie=cookie)
        method = scope.get("method", WEBSOCKET)
        if caller is None and method == "GET" and _opens_page(headers):
            query = scope["query_string"].decode("latin-1")
            target = quote(scope["path"] + (f"?{query}" if query else ""), safe="/")
            raise HttpProblem(303, "log in first", headers={"Location": f"/login?next={target}"})
        if caller is None:
            raise HttpProblem(
                401,
                "no valid token: none, or one that is revoked or over",
                fix="Authorization: Bearer vmr_…; vmrunner token create makes one",
            )
        if caller.cookie and method == WEBSOCKET:
            _refuse_other_origin(headers, self._parts)
        elif caller.cookie and method not in _SAFE:
            _refuse_forged(caller, headers)
        return caller

    async def verify(self, credential: str, *, cookie: bool) -> VerifiedCaller | None:
        """Look a credential up; None when it is not, or no more, valid."""
        if not credential:
            return None
        tokens, now = self._parts.ledger.tokens, self._parts.now()
        if cookie:
            found = await to_thread.run_sync(tokens.login, credential, now)
            token, csrf = found if found else (None, "")
        else:
            token, csrf = await to_thread.run_sync(tokens.of_secret, credential), ""
        if token is None or not token.valid(now):
            return None
        return VerifiedCaller(Principal.of(token), credential, cookie, csrf, token.name)


def _opens_page(headers: Headers) -> bool:
    """True for a browser that opens a page; not for a page that looks for news of itself."""
    return "text/html" in headers.get("accept", "") and "hx-request" not in headers


def _open(path: str) -> bool:
    return any(path.startswith(way) if way.endswith("/") else path == way for way in OPEN)


def cookie_name(parts: ServerParts, scope: Scope) -> str:
    """Name of a browser's cookie: over TLS one that no other host, and no page without
    TLS, can set one; without it by our port, since to a browser all ports of a host are one."""
    if parts.settings().server.url.startswith("https://"):
        return f"__Host-{_COOKIE}"
    return f"{_COOKIE}_{(scope.get('server') or ('', 0))[1]}"


def _credential(headers: Headers, name: str) -> tuple[str, bool]:
    """The secret that the request shows, and whether that is a cookie of this name."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme:
        return (secret.strip() if scheme.lower() == "bearer" else ""), False
    return cookie_parser(headers.get("cookie", "")).get(name, ""), True


def _refuse_forged(caller: VerifiedCaller, headers: Headers) -> None:
    """A browser's request that changes something must carry what only our pages have."""
    shown = headers.get(CSRF, "")
    if not hmac.compare_digest(shown.encode(), caller.csrf.encode()):
        raise HttpProblem(
            403,
            "the request did not come from a page of this server, or from one of a former login",
            fix="reload the page",
        )


def _refuse_other_origin(headers: Headers, parts: ServerParts) -> None:
    """A browser sends its cookies with every WebSocket, whichever page opens it, and says which.
    A page of this host that came without TLS may be anybody's."""
    scheme, _, origin = headers.get("origin", "").partition("://")
    is_plain = scheme != "https" and parts.settings().server.url.startswith("https://")
    if is_plain or not origin or origin != headers.get("host", ""):
        raise HttpProblem(403, "the WebSocket was not opened by a page of this server")


def refuse_foreign(headers: Headers) -> None:
    """Refuse a page of another site in a browser of this host: without tokens it could come by a
    name of its own that leads here, or by a form."""
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    origin = headers.get("origin")
    if name not in _LOOPBACK or (origin is not None and origin.partition("://")[2] != host):
        raise HttpProblem(403, "--insecure-no-auth serves requests of this host alone")


def caller(request: HTTPConnection) -> VerifiedCaller:
    """The principal of a request."""
    found: VerifiedCaller | None = request.scope["state"]["caller"]
    assert found is not None, "an open path has no caller"
    return found


async def still_valid(request: HTTPConnection) -> bool:
    """Verify the request's credential again, for an answer that lasts."""
    found = caller(request)
    authentication: Authentication = request.scope["state"]["authentication"]
    if not found.credential:
        return True
    return await authentication.verify(found.credential, cookie=found.cookie) is not None


class Requires:
    """A dependency: the principal, which has one of these scopes. `admin` has all but `metrics` and
    `enter`. `whole`: it has no label filter, since what is asked for is everybody's."""

    def __init__(self, *scopes: TokenScope, whole: bool = False) -> None:
        own = scopes in ((TokenScope.METRICS,), (TokenScope.ENTER,))
        self._scopes = {*scopes} if own else {*scopes, TokenScope.ADMIN}
        self._whole = whole

    async def __call__(self, request: HTTPConnection) -> Principal:
        principal = caller(request).principal
        if not self._scopes & principal.scopes:
            needed = " or ".join(sorted(self._scopes))
            raise HttpProblem(403, f"the token has no scope {needed}")
        if self._whole:
            refuse_filtered(principal)
        return principal


def refuse_filtered(principal: Principal) -> None:
    """Refuse a principal that does not see all."""
    if principal.labels:
        raise HttpProblem(403, "a token with a label filter may not ask for this")
