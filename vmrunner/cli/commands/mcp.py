"""`vmrunner mcp`."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import over_server, shell_of
from vmrunner.errors import ConfigError

TOKEN = "VMRUNNER_MCP_TOKEN"  # noqa: S105 - its name


def mcp(
    context: typer.Context,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help=f"Over HTTP, to callers with the token in {TOKEN}."),
    ] = None,
    network_at_most: Annotated[
        str,
        typer.Option(metavar="POLICY", help="No tool gives more: open, none, allow=HOST,…"),
    ] = "open",
) -> int:
    """Offer sandboxes and builds to agents as tools (MCP). On stdin and stdout."""
    from vmrunner.api.runner import Runner
    from vmrunner.config import network_policy

    try:
        from vmrunner.integrations.mcp import http as over_http
        from vmrunner.integrations.mcp.server import leave_if_cancelled, make
        from vmrunner.integrations.mcp.sessions import SessionSandboxes
    except ImportError as error:
        raise ConfigError(
            f"mcp: {error.name} is not installed", hint="pip install 'vmrunner[mcp]'"
        ) from None

    host, port, token = "", 0, os.environ.pop(TOKEN, "")
    if http is not None:
        host, _, number = http.rpartition(":")
        if not host or not number.isdecimal() or not 0 < int(number) < 65536:
            raise ConfigError(f"http: {http!r} is no HOST:PORT", hint="such as 127.0.0.1:8471")
        host, port = host.strip("[]"), int(number)
        if len(token) < 16:
            raise ConfigError(
                f"{TOKEN}: {'empty' if not token else 'shorter than 16 characters'}",
                hint=f"export {TOKEN}=$(openssl rand -hex 32)",
            )
    most = network_policy.policy(network_at_most, "network-at-most")
    output.hand_over()  # stdout is the protocol's
    sandboxes = SessionSandboxes()
    # The engine is another process: agents kill this one, and its sandboxes are to end with it.
    runner = Runner(
        app=None if over_server() else shell_of(context).app,
        engine=None,
        leave=leave_if_cancelled,
    )
    try:
        server = make(runner, sandboxes, network_at_most=most)
        if http is None:
            # The SDK would wait for a line that never comes.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            server.run("stdio")
        else:
            over_http.serve(server, token, host, port)
    finally:
        sandboxes.close()
        runner.close()
    return exit_codes.OK
