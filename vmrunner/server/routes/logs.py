"""Logs and events of a build: bytes by range, and streams of server-sent events."""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Final, Protocol

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from vmrunner.errors import LedgerError, StoreError
from vmrunner.ledger import Ledger
from vmrunner.model import BuildRecord, BuildState, Chunk, Principal
from vmrunner.server.authentication import still_valid
from vmrunner.server.caller_slots import CallerSlots, CallerStream
from vmrunner.server.change_watcher import ChangeWatcher
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.log_stream import LogPlace, last_line, page_from, place_after
from vmrunner.server.news_stream import NewsPage, SharedPages, event_bytes
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes import answers
from vmrunner.server.routes.common import (
    Number,
    Parameters,
    Parts,
    Reader,
    Watcher,
    ask_store,
    listing,
    visible_build,
)
from vmrunner.services import people
from vmrunner.services.document_types import ChunkDocument, ChunkHeadDocument
from vmrunner.services.documents import build_document, event_document
from vmrunner.services.follow import ended
from vmrunner.store.build_log import BuildLog

log = logging.getLogger("vmrunner.server")

router = APIRouter(tags=["logs"])

KEEPALIVE: Final = 15.0  # seconds without a word on a stream
SLICE: Final = 64 << 10  # bytes of a stream that are sent at once: a slow reader holds few
RECHECK: Final = 60.0  # seconds between two looks at the token of one
CHUNKS: Final = 32  # of a log in one answer
READ_CHUNKS: Final = 4  # … that are read at once
WHOLE_CHUNKS: Final = 8  # … of JSON, which is in memory as a whole
RAW: Final = "application/octet-stream"
CHUNK_WAIT: Final = 25.0  # seconds that a request for new chunks may wait
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


_LOG: Final = {
    "text/plain": answers.TEXT,
    SSE: {**answers.TEXT, "description": "Events `line` with the line, and `end` with the build."},
}
_EVENTS: Final = {
    SSE: {**answers.TEXT, "description": "Events of each kind, and `end` with the build."},
}


@router.get(
    "/builds/{build}/logs",
    responses={
        **answers.answers(
            problems=(409, 416, 429), others=_LOG, headers=("Accept-Ranges",), described="The log"
        ),
        **answers.answers(
            status=206,
            others={"text/plain": answers.TEXT},
            headers=("Accept-Ranges", "Content-Range"),
            described="A part of the log",
        ),
    },
)
async def read_log(
    build: str, request: Request, parts: Parts, watcher: Watcher, principal: Reader
) -> Response:
    """The log's bytes, or a part of them by `Range`; with `Accept: text/event-stream` its lines as
    they come, from the one after `Last-Event-ID` on, and the build at the end."""
    row = await to_thread.run_sync(visible_build, parts, principal, build)
    if SSE in request.headers.get("accept", ""):
        pages: SharedPages = request.app.state.pages
        lines = _Lines(pages, parts.log(row.id), row.id, _last_id(request))
        return _stream(request, watcher, principal, row.id, lines)
    return await ask_store(request, lambda: _bytes(request, parts, principal, row))


def _bytes(
    request: Request, parts: ServerParts, principal: Principal, row: BuildRecord
) -> CallerStream:
    size, chunks = parts.log(row.id).sized()
    start, stop = _range(request.headers.get("range"), size)
    headers = {**INERT, "Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    status = 200
    if request.headers.get("range"):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return CallerStream(
        chunks(start, stop),
        slots=request.app.state.stream_slots,
        principal=principal,
        status_code=status,
        headers=headers,
        media_type="text/plain; charset=utf-8",
    )


def _range(header: str | None, size: int) -> tuple[int, int]:
    """Return the first byte and the end of what is wanted."""
    if header is None:
        return 0, size
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[0] == "bytes=-":
        raise HttpProblem(
            416, f"Range: {header[:60]!r} cannot be read", fix="bytes=FIRST-LAST, one range",
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
    header = request.headers.get("last-event-id", "0")
    if not header.isdecimal() or len(header) > 18:
        raise HttpProblem(
            422, f"Last-Event-ID: {header[:60]!r} is no number", fix="the id of the last event"
        )
    return int(header)


@router.get(
    "/builds/{build}/chunks",
    responses=answers.answers(
        "ChunkPage", problems=(409, 429), others={RAW: answers.BINARY}, described="Chunks"
    ),
)
async def read_chunks(
    build: str,
    request: Request,
    parts: Parts,
    watcher: Watcher,
    principal: Reader,
    wanted: Annotated[ChunkParameters, Query()],
) -> Response:
    """The next chunks of the log as it is stored, in base64; with `Accept:
    application/octet-stream` each as a line of JSON with its size, and then its bytes. With `wait`
    once there is one more. For clients that show bytes as they come."""

    def read() -> Sequence[Chunk]:
        return lines.read(wanted.after_line, wanted.after_seq, limit=WHOLE_CHUNKS)

    row = await to_thread.run_sync(visible_build, parts, principal, build)
    lines = parts.log(row.id)
    slots: CallerSlots = request.app.state.stream_slots
    if RAW in request.headers.get("accept", ""):
        return CallerStream(
            _framed(lines, wanted.after_line, wanted.after_seq),
            slots=slots,
            principal=principal,
            headers=INERT,
            media_type=RAW,
        )
    with slots.held(principal):
        progress = await watcher.progress(row.id)
        chunks = await ask_store(request, read)
        if not chunks and wanted.wait and not ended(row):
            await watcher.changed(row.id, progress, CHUNK_WAIT)
            chunks = await ask_store(request, read)
    return listing(
        "chunk",
        [_whole_chunk(chunk) for chunk in chunks],
    )


def _framed(lines: BuildLog, after_line: int, after_seq: int) -> Iterator[bytes]:
    """Some chunks, one after the other."""
    for _ in range(CHUNKS // READ_CHUNKS):
        found = lines.read(after_line, after_seq, limit=READ_CHUNKS)
        if not found:
            return
        for chunk in found:
            yield b"%s\n" % json.dumps(chunk_head(chunk)).encode()
            yield chunk.data
        after_line, after_seq = 0, found[-1].seq


def _whole_chunk(chunk: Chunk) -> ChunkDocument:
    return {**chunk_head(chunk), "data": base64.b64encode(chunk.data).decode()}


def chunk_head(chunk: Chunk) -> ChunkHeadDocument:
    """A chunk's document without its bytes."""
    return {
        "seq": chunk.seq,
        "attempt": chunk.attempt,
        "time": chunk.time,
        "offset": chunk.offset,
        "line": chunk.line,
        "size": len(chunk.data),
    }


@router.get(
    "/builds/{build}/events",
    responses=answers.answers(
        "EventPage", problems=(409, 429), others=_EVENTS, described="What happened"
    ),
)
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
    events = _Events(request.app.state.pages, parts.ledger, row.id, after)
    return _stream(request, watcher, principal, row.id, events)


class _News(Protocol):
    """News of a build, as server-sent events."""

    async def next(self) -> bytes | None:
        """Return some of them, a bounded part; None when there are none yet."""

    def rest(self) -> bytes:
        """The last piece, once the build has ended and `next` has no more."""


class _Lines:
    """The lines of a log, whole."""

    def __init__(self, pages: SharedPages, log: BuildLog, build: str, after: int) -> None:
        self._pages, self._log, self._build = pages, log, build
        self._after = after
        self._place: LogPlace | None = None

    async def next(self) -> bytes | None:
        if self._place is None:
            self._place = await to_thread.run_sync(
                place_after, self._log, self._after, limiter=self._pages.threads
            )
        if (place := self._place) is None:
            return None
        page = await self._pages.page(self._build, place, lambda: page_from(self._log, place))
        if page is None:
            return None
        self._place = page.after
        return page.data

    def rest(self) -> bytes:
        return b"" if self._place is None else last_line(self._place)


class _Events:
    """The events of a build. A place in them is the number of one."""

    def __init__(self, pages: SharedPages, ledger: Ledger, build: str, after: int) -> None:
        self._pages, self._ledger, self._build, self._after = pages, ledger, build, after

    def _page(self) -> NewsPage[int] | None:
        found = self._ledger.events.list(self._build, self._after)
        if not found:
            return None
        frames = [event_bytes(event.kind, event_document(event), event.seq) for event in found]
        return NewsPage(b"".join(frames), found[-1].seq)

    async def next(self) -> bytes | None:
        page = await self._pages.page(self._build, self._after, self._page)
        if page is None:
            return None
        self._after = page.after
        return page.data

    def rest(self) -> bytes:
        return b""


def _ending(ledger: Ledger, build: str) -> bytes:
    (done,) = people.named(ledger, [ledger.builds.get(build)])
    starts = ledger.instances.starts([done.instance] if done.instance else [])
    return event_bytes("end", build_document(done, starts.get(done.instance or "")))


def _stream(
    request: Request, watcher: ChangeWatcher, principal: Principal, build: str, news: _News
) -> CallerStream:
    """Stream what `news` brings, again and again until the build has ended."""
    return CallerStream(
        _events(request, watcher, build, news),
        slots=request.app.state.stream_slots,
        principal=principal,
        media_type=SSE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    request: Request, watcher: ChangeWatcher, build: str, news: _News
) -> AsyncIterator[bytes]:
    ledger, pages = request.app.state.parts.ledger, request.app.state.pages
    checked = time.monotonic()
    try:
        with pages.following(build):
            progress = await watcher.progress(build)
            while True:
                found = await news.next()  # after the progress was looked at: the last look has all
                if found is not None:
                    for start in range(0, len(found), SLICE):
                        yield found[start : start + SLICE]
                elif progress[2] in (BuildState.HELD, BuildState.FINISHED):
                    yield news.rest() + await to_thread.run_sync(_ending, ledger, build)
                    return
                else:
                    before, progress = progress, await watcher.changed(build, progress, KEEPALIVE)
                    if progress == before:
                        yield b": still there\n\n"
                if time.monotonic() - checked >= RECHECK:
                    checked = time.monotonic()
                    if not await still_valid(request):
                        return
    except (LedgerError, StoreError) as error:  # who follows misses the end, and comes again
        log.warning("a stream of %s breaks off: %s", build, error)
