"""Logs and events of a build: bytes by range, and streams of server-sent events."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final, Protocol

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import format_sse_event

from vmrunner.ledger import Ledger
from vmrunner.model import BuildRecord, BuildState, Chunk, LogLine
from vmrunner.server.authentication import still_valid
from vmrunner.server.change_watcher import ChangeWatcher
from vmrunner.server.parts import ServerParts
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.common import (
    Number,
    Parameters,
    Parts,
    Reader,
    Watcher,
    listing,
    visible_build,
)
from vmrunner.services.documents import build_document, event_document, log_line_document
from vmrunner.services.follow import ended
from vmrunner.services.logs import LineReader, LogReader

router = APIRouter(tags=["logs"])

KEEPALIVE: Final = 15.0  # seconds without a word on a stream
LINE: Final = 1 << 20  # bytes of one line on a stream; the bytes by range have all
RECHECK: Final = 60.0  # seconds between two looks at the token of one
WAIT: Final = 25.0  # seconds that a request for new chunks may wait
_RANGE: Final = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")
SSE: Final = "text/event-stream"
#: What a build's own bytes are sent with: no browser takes them for a page.
INERT: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "no-store",
}


class ChunkParameters(Parameters):
    """The place from which on chunks are wanted; `wait`: for one at least."""

    after_line: Number = 0
    after_seq: Number = 0
    wait: bool = False


class EventParameters(Parameters):
    """`after`: only events with a higher number."""

    after: Number = 0


@router.get("/builds/{build}/logs")
def read_log(
    build: str, request: Request, parts: Parts, watcher: Watcher, principal: Reader
) -> Response:
    """The log's bytes, or a part of them by `Range`; with `Accept: text/event-stream` its lines as
    they come, from the one after `Last-Event-ID` on, and the build at the end."""
    row = visible_build(parts, principal, build)
    if SSE in request.headers.get("accept", ""):
        return _stream(request, watcher, row, _Lines(parts, row, _last_id(request)))
    size, chunks = parts.log(row.id).sized()
    start, stop = _range(request.headers.get("range"), size)
    headers = {**INERT, "Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    status = 200
    if request.headers.get("range"):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return StreamingResponse(
        chunks(start, stop), status, headers, media_type="text/plain; charset=utf-8"
    )


def _range(said: str | None, size: int) -> tuple[int, int]:
    """Return the first byte and the end of what is wanted."""
    if said is None:
        return 0, size
    found = _RANGE.fullmatch(said.strip())
    if found is None or found[0] == "bytes=-":
        raise HttpProblem(
            416, f"Range: {said[:60]!r} cannot be read", fix="bytes=FIRST-LAST, one range",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    first, last = found[1], found[2]
    if first is None:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    if start >= stop:
        raise HttpProblem(
            416, f"Range: the log has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, stop


def _last_id(request: Request) -> int:
    """Return the number that a client that comes again has seen last."""
    said = request.headers.get("last-event-id", "0")
    if not said.isdecimal() or len(said) > 18:
        raise HttpProblem(422, f"Last-Event-ID: {said[:60]!r} is no number")
    return int(said)


@router.get("/builds/{build}/chunks")
async def read_chunks(
    build: str,
    parts: Parts,
    watcher: Watcher,
    principal: Reader,
    wanted: Annotated[ChunkParameters, Query()],
) -> JSONResponse:
    """The log as it is stored, in chunks of base64; with `wait`, once there is one more. For
    clients that show bytes as they come."""

    def read() -> Sequence[Any]:
        return parts.log(row.id).read(wanted.after_line, wanted.after_seq, limit=32)

    row = await to_thread.run_sync(visible_build, parts, principal, build)
    progress = await watcher.progress(row.id)
    chunks = await to_thread.run_sync(read)
    if not chunks and wanted.wait and not ended(row):
        await watcher.changed(row.id, progress, WAIT)
        chunks = await to_thread.run_sync(read)
    return listing(
        "chunk",
        [
            {
                "seq": chunk.seq,
                "attempt": chunk.attempt,
                "time": chunk.time,
                "offset": chunk.offset,
                "line": chunk.line,
                "data": base64.b64encode(chunk.data).decode(),
            }
            for chunk in chunks
        ],
    )


@router.get("/builds/{build}/events")
def read_events(
    build: str,
    request: Request,
    parts: Parts,
    watcher: Watcher,
    principal: Reader,
    wanted: Annotated[EventParameters, Query()],
) -> Response:
    """Stream what happens to a build, from the event after `Last-Event-ID` on; with
    `Accept: application/json` list what happened so far."""
    row = visible_build(parts, principal, build)
    after = max(wanted.after, _last_id(request))
    if "application/json" in request.headers.get("accept", ""):
        found = parts.ledger.events.list(row.id, after)
        return listing("event", map(event_document, found))
    return _stream(request, watcher, row, _Events(parts, row, after))


class _News(Protocol):
    """News of a build, as server-sent events."""

    def batch(self) -> list[bytes]:
        """Return the next of them, a bounded part; none when there are none yet."""

    def rest(self) -> list[bytes]:
        """Return what is left once the build has ended and `batch` has no more."""


class _Lines:
    """The lines of a log, whole. Of a line without an end no more than `LINE` is held."""

    def __init__(self, parts: ServerParts, row: BuildRecord, after: int) -> None:
        self._reader = LogReader(parts.log(row.id), after=after)
        self._chunks: list[Chunk] = []
        self._lines = LineReader(most=LINE)

    def batch(self) -> list[bytes]:
        while True:
            self._chunks = self._chunks or list(self._reader.next_chunks())
            if not self._chunks:
                return []
            if found := [self._event(line) for line in self._lines.feed([self._chunks.pop(0)])]:
                return found

    def rest(self) -> list[bytes]:
        return [self._event(line) for line in self._lines.finish()]

    def _event(self, line: LogLine) -> bytes:
        return _sse("line", log_line_document(line), line.seq)


class _Events:
    """The events of a build."""

    def __init__(self, parts: ServerParts, row: BuildRecord, after: int) -> None:
        self._events, self._build, self._after = parts.ledger.events, row.id, after

    def batch(self) -> list[bytes]:
        found = self._events.list(self._build, self._after)
        self._after = found[-1].seq if found else self._after
        return [_sse(event.kind, event_document(event), event.seq) for event in found]

    def rest(self) -> list[bytes]:
        return []


def _ending(ledger: Ledger, build: str) -> dict[str, Any]:
    done = ledger.builds.get(build)
    starts = ledger.instances.starts([done.instance] if done.instance else [])
    return build_document(done, starts.get(done.instance or ""))


def _sse(kind: str, document: dict[str, Any], number: int | None = None) -> bytes:
    data = json.dumps(document, ensure_ascii=False)
    return format_sse_event(data_str=data, event=kind, id=None if number is None else str(number))


def _stream(
    request: Request,
    watcher: ChangeWatcher,
    row: BuildRecord,
    news: _News,
) -> StreamingResponse:
    """Stream what `news` brings, again and again until the build has ended."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(request, watcher, row, news), media_type=SSE, headers=headers)


async def _events(
    request: Request,
    watcher: ChangeWatcher,
    row: BuildRecord,
    news: _News,
) -> AsyncIterator[bytes]:
    ledger = request.app.state.parts.ledger
    checked = time.monotonic()
    while True:
        progress = await watcher.progress(row.id)  # before: the last look has all
        parts = await to_thread.run_sync(news.batch)
        for part in parts:
            yield part
        if not parts and progress[2] in (BuildState.HELD, BuildState.FINISHED):
            for part in await to_thread.run_sync(news.rest):
                yield part
            yield _sse("end", await to_thread.run_sync(_ending, ledger, row.id))
            return
        if not parts:
            await watcher.changed(row.id, progress, KEEPALIVE)
            if await watcher.progress(row.id) == progress:
                yield b": still there\n\n"
        if time.monotonic() - checked >= RECHECK:
            checked = time.monotonic()
            if not await still_valid(request):
                return
