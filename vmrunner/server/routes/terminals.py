"""Terminals and commands in the VM of a build or a sandbox, over a WebSocket (docs/http.md)."""

from __future__ import annotations

import asyncio
import functools
import json
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import APIRouter, Request, WebSocket
from pydantic import Field, StrictBool
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from vmrunner.config import field_checks
from vmrunner.core.boxes import SHELL
from vmrunner.errors import VmrunnerError
from vmrunner.lib import units
from vmrunner.lib.config_section import Section
from vmrunner.model import CommandOrder, Principal, TokenScope
from vmrunner.server import request_bodies
from vmrunner.server.authentication import Requires, still_valid
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.entered_streams import (
    NO_TOKEN,
    NORMAL,
    Ending,
    StreamEnded,
    StreamPump,
    control_frame,
    failed,
)
from vmrunner.server.entries import Entry
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.common import enterable_build
from vmrunner.services import ceilings, entering
from vmrunner.services.entering import EnteredCommand, Entrance, EntryOrder
from vmrunner.session.ssh.channel_io import ConnectionLost

router = APIRouter(tags=["terminals"])
PROTOCOL: Final = "vmrunner.terminal.v1"
FRAMES: Final = (
    "Binary frames are bytes, both ways. Text frames are JSON objects with a type: first start, "
    "then resize, signal, eof and keep-alive; from the server started, stderr, exit and error."
)
ENTER: Final = Requires(TokenScope.ENTER)
START: Final = 256 << 10  # characters of the first frame
START_TIMEOUT: Final = 20.0  # seconds until it must have come
REASON: Final = 120  # bytes of a close frame's reason
Size = Annotated[int, Field(ge=1, le=(1 << 16) - 1)]


class StartFrame(Section):
    """The first frame. `command`: none is a shell. `tty`: without one stdout and stderr are
    apart. `env` and `cwd` are for a container."""

    type: Literal["start"]
    command: list[str] = Field(default_factory=list, max_length=10_000)
    container: StrictBool = False
    tty: StrictBool = True
    columns: Size = 80
    rows: Size = 24
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str = "/work"

    def order(self, *, container: bool) -> EntryOrder:
        """Return it as the services take it. Raises ConfigError."""
        field_checks.command_order(
            CommandOrder(
                id="entry",
                argv=tuple(self.command) or SHELL,
                title="",
                env=self.env,
                cwd=self.cwd,
            )
        )
        return EntryOrder(
            command=tuple(self.command),
            container=container or self.container,
            size=(self.columns, self.rows) if self.tty else None,
            env=self.env,
            cwd=self.cwd,
        )


class ResizeFrame(Section):
    """Another size of the terminal."""

    type: Literal["resize"]
    columns: Size
    rows: Size


class SignalFrame(Section):
    """A signal for the command, by SSH's name of it."""

    type: Literal["signal"]
    signal: Literal["HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"]


@router.websocket("/builds/{build}/terminal")
async def build_terminal(socket: WebSocket, build: str) -> None:
    """A terminal in a build's VM, or in its container."""
    await _Session(socket, build, sandbox=False).run()


@router.websocket("/sandboxes/{sandbox}/terminal")
async def sandbox_terminal(socket: WebSocket, sandbox: str) -> None:
    """A terminal in a sandbox."""
    await _Session(socket, sandbox, sandbox=True).run()


@router.get("/builds/{build}/terminal", include_in_schema=False)
async def no_build_websocket(request: Request, build: str) -> None:
    """Say what is missing to whoever may enter: a proxy in between may have dropped it."""
    await entered(request, build, sandbox=False)
    raise upgrade_required()


@router.get("/sandboxes/{sandbox}/terminal", include_in_schema=False)
async def no_sandbox_websocket(request: Request, sandbox: str) -> None:
    """Say the same of a sandbox."""
    await entered(request, sandbox, sandbox=True)
    raise upgrade_required()


def upgrade_required() -> HttpProblem:
    """Return the refusal of a request that is no WebSocket's."""
    return HttpProblem(
        426,
        "this is a WebSocket, and the request has no Upgrade",
        fix="a proxy in between must pass it on: deploy/nginx/vmrunner.conf does",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )


async def entered(socket: HTTPConnection, word: str, *, sandbox: bool) -> tuple[Principal, str]:
    """The principal of a request, and the build that it enters. Raises HttpProblem, NotFound,
    Conflict, NotAllowed."""
    principal = await ENTER(socket)
    find = functools.partial(enterable_build, sandbox=sandbox)
    row = await to_thread.run_sync(find, socket.app.state.parts, principal, word)
    return principal, row.id


def offered(socket: WebSocket, protocol: str) -> str:
    """The subprotocol, if the caller speaks it. Raises HttpProblem."""
    if protocol not in socket.scope["subprotocols"]:
        raise HttpProblem(
            400, f"Sec-WebSocket-Protocol: {protocol} is not among it", fix=f"offer {protocol}"
        )
    return protocol


def origin_of(socket: HTTPConnection) -> str:
    """The address of a caller, for people: behind a proxy of this host as that one says."""
    host = socket.client.host if socket.client else "?"
    proxied = socket.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()[:64]
    if proxied and proxied.isprintable() and units.is_loopback(host):
        return f"{proxied} by {host}"
    return host


async def recheck(socket: WebSocket, entrance: Entrance) -> None:
    """Raise StreamEnded where the token is valid no more, VmrunnerError where the VM is gone."""
    if not await still_valid(socket):
        raise StreamEnded(Ending(NO_TOKEN, "the token is revoked, or its time is over"))
    await to_thread.run_sync(entrance.current)


async def hang_up(socket: WebSocket, ending: Ending) -> None:
    """Tell an end, unless the caller has left."""
    if ending.code is None:
        return
    with suppress(WebSocketDisconnect, RuntimeError):  # it leaves just now
        if ending.frame is not None:
            await socket.send_text(json.dumps(ending.frame))
        reason = ending.reason.encode()[:REASON].decode("utf-8", "ignore")
        await socket.close(ending.code, reason)


class _Session:
    """One terminal, from its request to its end."""

    def __init__(self, socket: WebSocket, word: str, *, sandbox: bool) -> None:
        self._socket, self._word, self._sandbox = socket, word, sandbox
        self._parts: ServerParts = socket.app.state.parts

    async def run(self) -> None:
        """Serve it. Raises HttpProblem and VmrunnerError before the WebSocket is open."""
        socket = self._socket
        principal, build = await entered(socket, self._word, sandbox=self._sandbox)
        entrance = self._parts.entrance(build)
        await to_thread.run_sync(entrance.current)
        slots: CallerSlots = socket.app.state.terminal_slots
        with slots.held(principal):
            await socket.accept(offered(socket, PROTOCOL))
            try:
                order = await self._order(principal)
                ending = await self._served(principal, entrance, order)
            except StreamEnded as error:
                ending = error.ending
            except WebSocketDisconnect:
                return
            except (VmrunnerError, HttpProblem) as error:
                ending = failed(error)
            await hang_up(socket, ending)

    async def _order(self, principal: Principal) -> EntryOrder:
        text = await first_text(self._socket)
        document = control_frame(text, START)
        request_bodies.refuse_unencodable(document)
        frame = request_bodies.validated(document, StartFrame)
        order = frame.order(container=self._sandbox)
        if not order.container:
            ceilings.check_root(self._parts.settings(), principal.quota)
        return order

    async def _served(self, principal: Principal, entrance: Entrance, order: EntryOrder) -> Ending:
        socket, build = self._socket, entrance.build
        threads: CapacityLimiter = socket.app.state.entry_threads.of(build)
        note = Entry(self._parts.ledger, principal.actor, build, entering.TERMINAL)
        what = "container" if order.container else "VM"
        await note.begin(f"the {what}, from {origin_of(socket)}")
        command, pump = None, None
        try:
            command = await to_thread.run_sync(entrance.open, order, limiter=threads)
            secrets = None
            if order.size is not None:
                secrets = await to_thread.run_sync(lambda: entrance.secrets)
            await socket.send_text(json.dumps({"type": "started"}))
            pump = StreamPump(
                socket,
                command,
                threads,
                control=lambda frame: _control(command, frame, threads),
                ended=lambda: _exit(command),
                still_allowed=lambda: recheck(socket, entrance),
                idle=self._parts.settings().server.idle_entry,
                secrets=secrets,
            )
            return await pump.run()
        finally:
            with CancelScope(shield=True):
                if command is not None and pump is None:
                    await to_thread.run_sync(command.close, limiter=threads)
                if pump is not None:
                    note.shown, note.typed = pump.shown, pump.typed
                await note.end()


async def _control(
    command: EnteredCommand, frame: dict[str, Any], threads: CapacityLimiter
) -> None:
    try:
        if frame["type"] == "resize":
            size = request_bodies.validated(frame, ResizeFrame)
            await to_thread.run_sync(command.resize, size.columns, size.rows, limiter=threads)
        elif frame["type"] == "signal":
            name = request_bodies.validated(frame, SignalFrame).signal
            await to_thread.run_sync(command.signal, name, limiter=threads)
    except ConnectionLost:
        if command.exit_code is None:  # else its end is told soon
            raise


def _exit(command: EnteredCommand) -> Ending:
    code = command.exit_code
    return Ending(NORMAL, f"exit code {code}", {"type": "exit", "code": code})


async def first_text(socket: WebSocket) -> str:
    """The first frame. Raises StreamEnded where none comes in time, or bytes do."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            message = await socket.receive()
    except TimeoutError:
        raise StreamEnded(Ending(1008, f"no first frame within {START_TIMEOUT:.0f} s")) from None
    if message["type"] == "websocket.disconnect":
        raise StreamEnded(Ending(None))
    return message.get("text") or ""
