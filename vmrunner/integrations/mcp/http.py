"""`vmrunner mcp --http`: the tools over streamable HTTP, for who shows the token."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from vmrunner.integrations.mcp.sessions import LONGEST_TTL
from vmrunner.server.connections import CallerConnection

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from starlette.types import ASGIApp, Receive, Scope, Send

SESSIONS: Final = 32
_REFUSED: Final = b"a token is needed: Authorization: Bearer $VMRUNNER_MCP_TOKEN\n"


class BearerToken:
    """Lets a request pass that shows the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            shown = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(shown, self._expected):
                headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": _REFUSED})
                return
        await self._app(scope, receive, send)


def application(server: MCPServer[Any], token: str, host: str, port: int) -> ASGIApp:
    """Return the application. A browser's request is refused, whatever page sends it: it has an
    Origin, and none is allowed."""
    shown = f"[{host}]" if ":" in host else host
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{shown}:{port}", f"localhost:{port}"],
        allowed_origins=[],
    )
    app = server.streamable_http_app(
        host=host,
        transport_security=security,
        session_idle_timeout=LONGEST_TTL,
        max_sessions=SESSIONS,
    )
    return BearerToken(app, token)


def configuration(server: MCPServer[Any], token: str, host: str, port: int) -> uvicorn.Config:
    """The server of it: a caller without a token holds no connection for long."""
    return uvicorn.Config(
        application(server, token, host, port),
        host=host,
        port=port,
        http=CallerConnection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=64 * 1024,
    )


def serve(server: MCPServer[Any], token: str, host: str, port: int) -> None:
    """Serve until the process is told to end."""
    uvicorn.Server(configuration(server, token, host, port)).run()
