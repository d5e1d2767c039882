"""Bytes between a caller's WebSocket and a VM, both ways at once, in bounded memory: who does not
take them holds the other back. Binary frames are bytes; text frames are control, as JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from vmrunner.errors import VmrunnerError
from vmrunner.lib.masking import Masker
from vmrunner.server.problems import HttpProblem, of_error
from vmrunner.session.ssh.channel_io import ConnectionLost

if TYPE_CHECKING:
    from vmrunner.lib.secret_patterns import SecretPatterns
    from vmrunner.session.ssh.rung_channel import Bell

T = TypeVar("T")

NORMAL: Final = 1000
UNREADABLE: Final = 1003  # a frame that is none of the protocol's
TOO_LARGE: Final = 1009
NO_TOKEN: Final = 4401  # it is valid no more
IDLE: Final = 4408
GONE: Final = 4410  # the VM, or the connection to it
CONTROL: Final = 4096  # bytes of a text frame, but the first
LOOK: Final = 15.0  # seconds between two looks at what is silent
RECHECK: Final = 60.0  # seconds between two looks at the token, and at the build
HELD: Final = 0.25  # seconds for which what may become a secret is held back
FULL: Final = (0.02, 0.25)  # seconds until room is looked for again: first, and at most
FRAMES: Final = 500  # that are taken at once; who sends more waits
FRAMES_SPAN: Final = 0.5  # seconds in which so many are


class EnteredStream(Protocol):
    """The other end: a command, or a port."""

    def ring(self, bell: Bell) -> None:
        """Ring this bell when something came or it ended."""

    def take(self) -> bytes | None:
        """Bytes that are there; b"" at their end; None: there are none yet."""

    def send(self, data: memoryview) -> int | None:
        """Send a piece; None: the other end has ended."""

    def end_input(self) -> None:
        """Tell that nothing more is sent."""

    def check(self) -> float:
        """Ask a peer that fell silent. Raises ConnectionLost."""

    def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A stream's end: a close code and its reason. None: the caller has left."""

    code: int | None
    reason: str = ""
    frame: dict[str, Any] | None = None  # sent before


class StreamEnded(Exception):
    """Ends a stream from within one of its tasks."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


class LoopBell:
    """Wakes a task of an event loop from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def set(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float | None) -> bool:
        """Wait until it was rung; False: it was not for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class Pace:
    """Slows down who sends small pieces: each costs this event loop as much as a large one."""

    def __init__(self) -> None:
        self._pieces, self._since = 0, time.monotonic()

    async def took(self, pieces: int) -> None:
        """Count so many, and wait where they are too many."""
        self._pieces += pieces
        if self._pieces >= FRAMES:
            await asyncio.sleep(max(0.0, self._since + FRAMES_SPAN - time.monotonic()))
            self._pieces, self._since = 0, time.monotonic()


class StreamPump:
    """Carries one stream to its end. `shown` and `typed`: bytes that went to and came from the
    caller."""

    def __init__(
        self,
        socket: WebSocket,
        stream: EnteredStream,
        threads: CapacityLimiter,
        *,
        control: Callable[[dict[str, Any]], Coroutine[Any, Any, None]],
        ended: Callable[[], Ending],
        still_allowed: Callable[[], Awaitable[None]],
        idle: float,
        secrets: SecretPatterns | None = None,
    ) -> None:
        """`control`: takes a text frame that is none of every stream's. `ended`: how the other end
        has ended. `still_allowed`: raises StreamEnded or VmrunnerError. `idle`: seconds. `secrets`:
        what is masked."""
        self._socket, self._stream, self._threads = socket, stream, threads
        self._control, self._ended, self._still_allowed = control, ended, still_allowed
        self._idle = idle
        self._secrets = secrets
        self._masker = None if secrets is None else Masker(secrets)
        self._active = time.monotonic()
        self._bell = LoopBell()
        self.shown = self.typed = 0

    async def run(self) -> Ending:
        """Carry until either end has ended. The stream is closed then."""
        tasks = [asyncio.create_task(way) for way in (self._down(), self._up(), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return await self._ending(next(task for task in tasks if task in done))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with CancelScope(shield=True):
                await self._ask(self._stream.close)

    async def _ending(self, task: asyncio.Task[Ending]) -> Ending:
        try:
            return task.result()
        except StreamEnded as error:
            return error.ending
        except WebSocketDisconnect:
            return Ending(None)
        except ConnectionLost as error:
            try:
                await self._still_allowed()
            except StreamEnded as ended:
                return ended.ending
            except VmrunnerError as why:
                return failed(why)
            return failed(ConnectionLost(f"the connection to the VM broke off: {error}"))
        except VmrunnerError as error:
            return failed(error)

    async def ask(self, work: Callable[[], T]) -> T:
        """Do what may wait for the VM, in a thread."""
        return await self._ask(work)

    async def _ask(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)

    # --- to the caller ---

    async def _down(self) -> Ending:
        self._stream.ring(self._bell)
        while True:
            holds = self._masker is not None and self._masker.held > 0
            if not await self._bell.wait(HELD if holds else None):
                await self._show(await self._ask(self._flush))
                continue
            while True:
                output, stderr, is_over = await self._ask(self._take)
                await self._show(output)
                if stderr:
                    data = base64.b64encode(stderr).decode()
                    await self._socket.send_text(json.dumps({"type": "stderr", "data": data}))
                if is_over:
                    await self._show(await self._ask(self._flush))
                    return self._ended()
                if output is None and not stderr:
                    break

    def _take(self) -> tuple[bytes | None, bytes, bool]:
        """Output, masked, if there was some; stderr; and whether it has ended."""
        take_stderr = getattr(self._stream, "take_stderr", None)
        stderr = take_stderr() if take_stderr else b""
        data = self._stream.take()
        if data and self._masker is not None:
            return self._masker.feed(data), stderr, False
        return data, stderr, data == b""

    def _flush(self) -> bytes:
        """The bytes that were held back."""
        if self._masker is None:
            return b""
        rest = self._masker.finish()
        self._masker = Masker(self._secrets or ())
        return rest

    async def _show(self, data: bytes | None) -> None:
        if data:
            self._active = time.monotonic()
            self.shown += len(data)
            await self._socket.send_bytes(data)

    # --- from the caller ---

    async def _up(self) -> Ending:
        pace = Pace()
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return Ending(None)
            await pace.took(1)
            if (data := message.get("bytes")) is not None:
                self._active = time.monotonic()
                await self._type(memoryview(data))
            else:
                await self._take_control(control_frame(message.get("text") or ""))

    async def _take_control(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "eof":
            await self._ask(self._stream.end_input)
        elif frame["type"] != "keep-alive":
            await self._control(frame)

    async def _type(self, data: memoryview) -> None:
        pause = FULL[0]
        while data:
            piece = data
            sent = await self._ask(lambda: self._stream.send(piece))  # noqa: B023 - awaited
            if sent is None:
                return  # its end is told soon
            self.typed += sent
            data = data[sent:]
            if not sent:
                await asyncio.sleep(pause)
            pause = FULL[0] if sent else min(pause * 2, FULL[1])

    # --- what is silent ---

    async def _watch(self) -> Ending:
        checked = time.monotonic()
        while True:
            await asyncio.sleep(min(LOOK, RECHECK, self._idle))
            now = time.monotonic()
            if now - self._active >= self._idle:
                return Ending(IDLE, f"nothing came or went for {self._idle:.0f} s")
            if now - checked >= RECHECK:  # first: a hostile VM may hold up what follows
                checked = now
                await self._still_allowed()
            await self._ask(self._stream.check)


def control_frame(text: str, most: int = CONTROL) -> dict[str, Any]:
    """A text frame as its object. Raises StreamEnded for what is none of the protocol's."""
    if len(text) > most:
        raise StreamEnded(Ending(TOO_LARGE, f"a text frame has {most} characters at most"))
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        frame = None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise StreamEnded(Ending(UNREADABLE, 'a text frame is {"type": …}'))
    return frame


def failed(error: VmrunnerError | HttpProblem) -> Ending:
    """The end of a stream by an error, which is told as a problem document."""
    answer = error.response() if isinstance(error, HttpProblem) else of_error(error)
    document = json.loads(bytes(answer.body))
    return Ending(GONE, str(error.args[0])[:100], {**document, "type": "error"})
