"""Ports of VMs as pages: below `…/ports/N/` of this server, or each under a host name of its own
(`server.port_domain`). Who may see one is told by a token, or by a cookie or a key that is worth
nothing but this port; what the VM sends never has the page's origin."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, cookie_parser
from starlette.responses import Response
from starlette.websockets import WebSocket

from vmrunner.errors import VmrunnerError
from vmrunner.model import Principal, TokenScope
from vmrunner.server import port_grants
from vmrunner.server.authentication import Authentication, cookie_name, refuse_foreign
from vmrunner.server.entered_streams import NO_TOKEN, Ending, StreamEnded
from vmrunner.server.port_grants import PortLogin
from vmrunner.server.port_proxy import HttpExchange, PortRequest, WebSocketRelay, scheme_of
from vmrunner.server.port_stream import PortStream
from vmrunner.server.problems import HttpProblem, of_error
from vmrunner.server.routes.common import enterable_build
from vmrunner.server.routes.ports import PORT_DIGITS, connected, port_number
from vmrunner.server.routes.terminals import hang_up

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from vmrunner.model import BuildRecord
    from vmrunner.server.dependencies import ServerParts

_PATH: Final = re.compile(rb"/api/v1/(builds|sandboxes)/([^/]+)/ports/([^/]+)/(.*)", re.DOTALL)
_HOST: Final = re.compile(r"(\d{1,5})-(b-[0-9a-z-]{1,60})")
_KEY: Final = re.compile(rb"~([0-9a-f.]{1,200})/(.*)", re.DOTALL)
COOKIE: Final = "vmrunner_port"
_HANDOVER: Final = "vmrunner_enter"  # a parameter
_OPENS: Final = ("GET", "HEAD")
LASTS: Final = 8 * 3600  # seconds of a cookie, at most: it is over with its login


@dataclass(frozen=True, slots=True)
class _Target:
    """A port that a request names. `word`: the build; `rest`: the path there, with its query;
    `key`: a proof in the path; `own_origin`: it was named by a host of its own."""

    kind: str
    word: str
    port: str
    rest: bytes
    key: str = ""
    own_origin: bool = False
    is_secure: bool = False

    @property
    def cookie(self) -> str:
        """The name of its cookie. By its path, or its host, each port has its own; over TLS no page
        of another host can set that of a host."""
        return f"__Host-{COOKIE}" if self.own_origin and self.is_secure else COOKIE

    @property
    def base(self) -> str:
        """The path below which the port lies on this server."""
        return f"/api/v1/{self.kind}/{quote(self.word, safe='')}/ports/{self.port}"


@dataclass(frozen=True, slots=True)
class _Entrant:
    """A caller of a port. `login`: its browser's, where that proved it; `is_bound`: by a token, or
    by a proof for this port alone."""

    principal: Principal
    login: PortLogin | None = None
    is_bound: bool = False
    credential: str = ""


class PortPages:
    """ASGI middleware before all others: what is for a port goes there, and nowhere else."""

    def __init__(
        self,
        app: ASGIApp,
        parts: ServerParts,
        *,
        everybody: Principal | None = None,
    ) -> None:
        """`everybody`: as whom all are taken, without a token."""
        self._app, self._parts = app, parts
        self._authentication = Authentication(app, parts)
        self._everybody = everybody

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope["type"] in ("http", "websocket")
        try:
            target = self._target(scope) if is_asked else None
            if target is not None:
                await self._serve(scope, receive, send, target)
                return
        except HttpProblem as error:
            await error.response()(scope, receive, send)
        except VmrunnerError as error:
            await of_error(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    # --- which port ---

    def _target(self, scope: Scope) -> _Target | None:
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        if not path.startswith(b"/"):
            raise HttpProblem(400, "what is asked for is no path")
        host = Headers(scope=scope).get("host", "").partition(":")[0].lower()
        domain = self._parts.settings().server.port_domain.removeprefix("*")
        if domain and host.endswith(domain):
            found = _HOST.fullmatch(host.removesuffix(domain))
            if found is None:
                raise HttpProblem(
                    404, f"{host[:80]!r} names no port", fix="PORT-BUILD, such as 8000-b-01…"
                )
            secure = self._parts.settings().server.url.startswith("https://")
            return _Target(
                "builds", found[2], found[1], path + query, own_origin=True, is_secure=secure
            )
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        kind, word, port, rest = match.groups()
        key = _KEY.fullmatch(rest)
        name = unquote(word.decode("latin-1"))
        if "\0" in name:
            raise HttpProblem(404, "nothing is named with a NUL character")
        if key is not None:
            return _Target(
                kind.decode(), name, port.decode("latin-1"), b"/" + key[2] + query, key[1].decode()
            )
        return _Target(kind.decode(), name, port.decode("latin-1"), b"/" + rest + query)

    # --- who ---

    async def _entrant(self, scope: Scope, headers: Headers, target: _Target) -> _Entrant | None:
        """The caller; None: nobody that is known."""
        if self._everybody is not None:
            refuse_foreign(headers)
            return _Entrant(self._everybody, is_bound=True)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            caller = await self._authentication.verify(secret.strip(), cookie=False)
            if caller is not None:
                return _Entrant(caller.principal, is_bound=True, credential=secret.strip())
        cookies = cookie_parser(headers.get("cookie", ""))
        proofs = [(port_grants.KEY, target.key)] if target.key else []
        proofs.append((port_grants.COOKIE, cookies.get(target.cookie, "")))
        for use, proof in proofs:
            login = await self._proved(proof, use, target)
            if login is not None:
                return _Entrant(Principal.of(login.token), login, is_bound=True)
        if target.own_origin:
            return None
        cookie = cookies.get(cookie_name(self._parts, scope), "")
        tokens, now = self._parts.ledger.tokens, self._parts.now()
        login = await to_thread.run_sync(port_grants.of_cookie, tokens, cookie, now)
        return None if login is None else _Entrant(Principal.of(login.token), login)

    async def _proved(self, proof: str, use: str, target: _Target) -> PortLogin | None:
        if not proof or not target.port.isdecimal() or len(target.port) > PORT_DIGITS:
            return None
        tokens, now = self._parts.ledger.tokens, self._parts.now()
        return await to_thread.run_sync(
            port_grants.of_proof, tokens, proof, use, target.word, int(target.port), now
        )

    async def _visible(self, target: _Target, principal: Principal) -> BuildRecord:
        """The build. Raises HttpProblem, NotFound, Conflict, NotAllowed."""
        if TokenScope.ENTER not in principal.scopes:
            raise HttpProblem(403, "the token has no scope enter")
        find = functools.partial(enterable_build, sandbox=target.kind == "sandboxes")
        return await to_thread.run_sync(find, self._parts, principal, target.word)

    # --- what ---

    async def _serve(self, scope: Scope, receive: Receive, send: Send, target: _Target) -> None:
        headers = Headers(scope=scope)
        method = scope.get("method", "")
        opens = method in _OPENS and headers.get("sec-fetch-mode", "navigate") == "navigate"
        if target.own_origin and (answer := await self._handed_over(target, method)) is not None:
            await answer(scope, receive, send)
            return
        entrant = await self._entrant(scope, headers, target)
        if entrant is None:
            await self._unknown(headers, target, opens=opens)(scope, receive, send)
            return
        row = await self._visible(target, entrant.principal)
        number = port_number(target.port)
        if not entrant.is_bound or self._leads_on(headers, target, entrant, opens=opens):
            if method not in _OPENS:
                raise HttpProblem(403, "open the port in the browser first, with GET")
            await self._opened(scope, target, entrant, row, number)(scope, receive, send)
            return
        if headers.get("service-worker") and not target.own_origin:
            raise HttpProblem(403, "a port without a host name of its own has no service workers")
        if entrant.login is not None and not target.key:
            _refuse_others(scope, headers)
        if _asks_before(headers, method, target):
            await Response(status_code=204, headers=_allowed(headers))(scope, receive, send)
            return
        await self._carry(scope, receive, send, target, entrant, row, number)

    def _leads_on(
        self, headers: Headers, target: _Target, entrant: _Entrant, *, opens: bool
    ) -> bool:
        """True for a browser that came by its cookie: what it loads next has none, for the page is
        of no origin."""
        if entrant.login is None or target.key or target.own_origin:
            return False
        return opens and "sec-fetch-mode" in headers

    def _unknown(self, headers: Headers, target: _Target, *, opens: bool) -> Response:
        if opens and "text/html" in headers.get("accept", ""):
            rest = target.rest.decode("latin-1")
            place = target.base + rest
            if target.own_origin:
                return _redirect(self._parts.settings().server.url + place)
            return _redirect(f"/login?next={quote(place, safe='/')}")
        return HttpProblem(
            401,
            "no valid token: none, or one that is revoked or over",
            fix="Authorization: Bearer vmr_…, or open it in a browser that is logged in",
            headers={"WWW-Authenticate": "Bearer"},
        ).response()

    def _opened(
        self, scope: Scope, target: _Target, entrant: _Entrant, row: BuildRecord, port: int
    ) -> Response:
        """Send a browser on to where the port is: its own host, or below a key."""
        login, settings = entrant.login, self._parts.settings().server
        assert login is not None, "who has a token alone is bound to nothing"
        rest = target.rest.decode("latin-1")
        if settings.port_domain:
            until = int(self._parts.now() + port_grants.HANDOVER_LASTS)
            proof = login.proof(port_grants.HANDOVER, row.id, port, until=until)
            mark = "&" if "?" in rest else "?"
            return _redirect(f"{self._own_url(row.id, port)}{rest}{mark}{_HANDOVER}={proof}")
        base = _Target(target.kind, row.id, str(port), b"").base
        answer = _redirect(f"{base}/~{login.proof(port_grants.KEY, row.id, port)}{rest}")
        proof = login.proof(port_grants.COOKIE, row.id, port)
        secure = scheme_of(scope, settings.url) == "https"
        answer.set_cookie(
            COOKIE, proof, path=f"{base}/", max_age=LASTS, httponly=True, samesite="lax",
            secure=secure,
        )  # fmt: skip
        return answer

    def _own_url(self, build: str, port: int) -> str:
        settings = self._parts.settings().server
        server = urlsplit(settings.url)
        where = f":{server.port}" if server.port else ""
        domain = settings.port_domain.removeprefix("*")
        return f"{server.scheme}://{port}-{build}{domain}{where}"

    async def _handed_over(self, target: _Target, method: str) -> Response | None:
        """Give a browser the cookie of a port's own host, where it brought a fresh proof."""
        path, _, query = target.rest.decode("latin-1").partition("?")
        pairs = [pair for pair in query.split("&") if pair]
        proof = next((pair for pair in pairs if pair.startswith(f"{_HANDOVER}=")), None)
        if proof is None or method not in _OPENS:
            return None
        others = "&".join(pair for pair in pairs if pair != proof)
        local = f"/{path.lstrip('/' + chr(92))}"  # of two slashes the rest would be a host
        answer = _redirect(local + (f"?{others}" if others else ""))
        login = await self._proved(proof.partition("=")[2], port_grants.HANDOVER, target)
        if login is not None:
            answer.set_cookie(
                target.cookie,
                login.proof(port_grants.COOKIE, target.word, int(target.port)),
                max_age=LASTS,
                httponly=True,
                samesite="lax",
                secure=self._parts.settings().server.url.startswith("https://"),
            )
        return answer

    async def _carry(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        target: _Target,
        entrant: _Entrant,
        row: BuildRecord,
        port: int,
    ) -> None:
        settings = self._parts.settings().server
        entrance = self._parts.entrance(row.id)

        async def still_allowed() -> None:
            if not await self._still_known(entrant):
                raise StreamEnded(Ending(NO_TOKEN, "the token is revoked, or its time is over"))
            await to_thread.run_sync(entrance.current)

        prefix = "" if target.own_origin else target.base
        request = PortRequest(
            port=port,
            target=target.rest,
            prefix=f"{prefix}/~{target.key}" if target.key else prefix,
            own_origin=target.own_origin,
            scheme=scheme_of(scope, settings.url),
            is_readable=bool(target.key),
            headers=scope["headers"],
            idle=settings.idle_entry,
            still_allowed=still_allowed,
        )
        connection = HTTPConnection(scope)
        async with connected(connection, entrant.principal, entrance, port) as (channel, entry):
            stream = PortStream(channel, scope["app"].state.entry_threads.of(row.id))
            try:
                if scope["type"] == "http":
                    await HttpExchange(request, stream, scope["method"]).run(receive, send)
                    return
                socket = WebSocket(scope, receive, send)
                ending = await WebSocketRelay(request, stream, socket).run()
                await hang_up(socket, ending)
            finally:
                entry.shown += stream.read_bytes
                entry.typed += stream.written_bytes

    async def _still_known(self, entrant: _Entrant) -> bool:
        if entrant.credential:
            found = await self._authentication.verify(entrant.credential, cookie=False)
            return found is not None
        if entrant.login is None:
            return True
        tokens, now = self._parts.ledger.tokens, self._parts.now()
        login = await to_thread.run_sync(port_grants.renewed, tokens, entrant.login, now)
        return login is not None


def _refuse_others(scope: Scope, headers: Headers) -> None:
    """Refuse what another site's page sends with a browser's cookie, other ports' pages too."""
    origin = headers.get("origin")
    is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    is_visit = scope.get("method") in _OPENS and mode == "navigate"
    if is_foreign or (site in ("same-site", "cross-site") and not is_visit):
        raise HttpProblem(403, "the request comes from another site's page")


def _asks_before(headers: Headers, method: str, target: _Target) -> bool:
    """True for a browser that asks whether a page of no origin may send a request."""
    asks = method == "OPTIONS" and "access-control-request-method" in headers
    return asks and bool(target.key) and headers.get("origin") == "null"


def _allowed(headers: Headers) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": "null",
        "Access-Control-Allow-Methods": headers.get("access-control-request-method", ""),
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
        "Access-Control-Max-Age": "600",
    }


def _redirect(target: str) -> Response:
    headers = {"Location": target, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=303, headers=headers)
