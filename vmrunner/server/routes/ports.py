"""Ports of the container of a build or a sandbox, over a WebSocket (docs/http.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from vmrunner.errors import VmrunnerError
from vmrunner.model import Principal
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.entered_streams import NORMAL, Ending, StreamEnded, StreamPump, failed
from vmrunner.server.entries import Entry, PortVisits
from vmrunner.server.port_connections import PortConnections
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.terminals import (
    entered,
    hang_up,
    offered,
    origin_of,
    recheck,
    upgrade_required,
)
from vmrunner.services.entering import Entrance, refusal
from vmrunner.session.ssh.port_channel import PortChannel

router = APIRouter(tags=["ports"])
PROTOCOL: Final = "vmrunner.port.v1"
FRAMES: Final = (
    "Binary frames are bytes, both ways. Text frames are JSON objects with a type: eof ends one "
    "way, keep-alive does nothing; from the server error."
)
PORT_DIGITS: Final = 5


@router.websocket("/builds/{build}/ports/{port}")
async def build_port(socket: WebSocket, build: str, port: str) -> None:
    """A connection to a port of a build's container."""
    await _carry(socket, build, port, sandbox=False)


@router.websocket("/sandboxes/{sandbox}/ports/{port}")
async def sandbox_port(socket: WebSocket, sandbox: str, port: str) -> None:
    """A connection to a port of a sandbox."""
    await _carry(socket, sandbox, port, sandbox=True)


@router.get("/builds/{build}/ports/{port}", include_in_schema=False)
async def no_build_websocket(request: Request, build: str, port: str) -> None:
    """Say what is missing."""
    await entered(request, build, sandbox=False)
    port_number(port)
    raise upgrade_required()


@router.get("/sandboxes/{sandbox}/ports/{port}", include_in_schema=False)
async def no_sandbox_websocket(request: Request, sandbox: str, port: str) -> None:
    """Say what is missing."""
    await entered(request, sandbox, sandbox=True)
    port_number(port)
    raise upgrade_required()


async def _carry(socket: WebSocket, word: str, port: str, *, sandbox: bool) -> None:
    principal, build = await entered(socket, word, sandbox=sandbox)
    number = port_number(port)
    parts: ServerParts = socket.app.state.parts
    entrance = parts.entrance(build)
    protocol = offered(socket, PROTOCOL)
    async with connected(socket, principal, entrance, number) as (channel, entry):
        await socket.accept(protocol)
        pump = StreamPump(
            socket,
            channel,
            socket.app.state.entry_threads.of(build),
            control=_ignore,
            ended=lambda: _ended(channel),
            still_allowed=lambda: recheck(socket, entrance),
            idle=parts.settings().server.idle_entry,
        )
        try:
            ending = await pump.run()
        except StreamEnded as error:
            ending = error.ending
        except WebSocketDisconnect:
            return
        except VmrunnerError as error:
            ending = failed(error)
        finally:
            entry.shown += pump.shown
            entry.typed += pump.typed
        await hang_up(socket, ending)


@asynccontextmanager
async def connected(
    request: HTTPConnection, principal: Principal, entrance: Entrance, port: int
) -> AsyncIterator[tuple[PortChannel, Entry]]:
    """A connection to a port, within the bounds of its caller, noted. Raises HttpProblem,
    VmrunnerError."""
    state = request.app.state
    slots: CallerSlots = state.port_slots
    visits: PortVisits = state.port_visits
    connections: PortConnections = state.port_connections
    where = principal.actor, entrance.build, port
    with slots.held(principal):
        entry = await visits.enter(state.parts.ledger, *where, origin_of(request))
        try:
            async with connections.port(entrance, port) as channel:
                yield channel, entry
        finally:
            visits.leave(*where)


def port_number(word: str) -> int:
    """A port as a path has it. Raises HttpProblem."""
    if not word.isdecimal() or len(word) > PORT_DIGITS or not 1 <= int(word) < 1 << 16:
        raise HttpProblem(422, f"port: {word[:20]!r} is none", fix="a number from 1 to 65535")
    return int(word)


def _ended(channel: PortChannel) -> Ending:
    error = refusal(channel)
    if error is not None:
        return failed(error)
    return Ending(NORMAL, "the port has ended", {"type": "eof"})


async def _ignore(frame: dict[str, Any]) -> None:
    """Do nothing: it is of a later version."""
    del frame
