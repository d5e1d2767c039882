"""Parts of a log for who shows it: lines at any place, where its steps begin, and a search."""

from __future__ import annotations

from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from vmrunner.model import BuildRecord, LogLine
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.log_stream import LINE
from vmrunner.server.routes.answers import answers
from vmrunner.server.routes.common import (
    Number,
    Parameters,
    Parts,
    Reader,
    ask_store,
    listing,
    visible_build,
)
from vmrunner.services import build_history, log_search, log_windows
from vmrunner.services.document_types import LogLineDocument, LogSearchDocument, LogSectionDocument
from vmrunner.services.documents import iso, log_line_document, shown
from vmrunner.services.follow import ended
from vmrunner.services.log_outline import LogSection, sections

router = APIRouter(tags=["logs"])
_TITLE: Final = 200  # characters of a step's name


class WindowParameters(Parameters):
    """The first line that is wanted, and how many; `width`: bytes of each at most."""

    first: int = Field(default=1, ge=1, le=2**53)
    count: int = Field(default=500, ge=1, le=2000)
    width: int = Field(default=log_windows.WIDTH, ge=1, le=LINE)


class SearchParameters(Parameters):
    """`after`: only lines with a higher number."""

    text: str = Field(min_length=1, max_length=200, pattern=r"^[^\n]*$")
    after: Number = 0


@router.get("/builds/{build}/logs/lines", responses=answers("LogWindowPage", problems=(409,)))
async def read_lines(
    build: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    wanted: Annotated[WindowParameters, Query()],
) -> Response:
    """Lines of the log from one on; `cut`: it is longer. Fewer than `count` where the log ends, or
    where they are long: `next` is the number to go on with."""

    def read() -> Response:
        row = visible_build(parts, principal, build)
        width = wanted.width
        found = log_windows.window(parts.log(row.id), wanted.first, wanted.count, width=width)
        items = [_line_document(line) for line in found]
        return listing("log_line", items, next_=str(found[-1].seq + 1) if found else None)

    return await ask_store(request, read)


def _line_document(line: log_windows.WindowLine) -> LogLineDocument:
    document = log_line_document(LogLine("", line.data, line.seq, line.time))
    if line.cut:
        document["cut"] = True
    return document


@router.get("/builds/{build}/logs/outline", responses=answers("LogSectionPage", problems=(409,)))
async def read_outline(build: str, request: Request, parts: Parts, principal: Reader) -> Response:
    """The sections of the log: a step each, with its first line and its last, which is less than
    the first where there is none. `ended`: no line will follow."""

    def read() -> Response:
        return _outline(parts, visible_build(parts, principal, build))

    return await ask_store(request, read)


def _outline(parts: ServerParts, row: BuildRecord) -> Response:
    log = parts.log(row.id)
    places = log.places()
    lines = log_windows.line_count(log, places)
    found = sections(parts.ledger.events.list(row.id), places, lines)
    items = [_section_document(row, section) for section in found]
    return listing("log_section", items, ended=ended(row))


def _section_document(row: BuildRecord, section: LogSection) -> LogSectionDocument:
    run = section.run
    index = None if run is None else run.index
    if index is not None:
        title = build_history.short_title(row, index, _TITLE)
    else:
        title = "before the first step" if run is None else "the container's image"
    return {
        "step": index,
        "title": shown(title),
        "attempt": None if run is None else run.attempt,
        "first": section.first,
        "last": section.last,
        "started_at": None if run is None else iso(run.started),
        "ended_at": None if run is None else iso(run.ended),
        "exit_code": None if run is None else run.exit_code,
    }


@router.get("/builds/{build}/logs/search", responses=answers("LogSearchPage", problems=(409, 429)))
async def search_log(
    build: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    wanted: Annotated[SearchParameters, Query()],
) -> Response:
    """Numbers of the lines that have a text in them, whatever the case of ASCII letters. A part of
    the log at a time: unless `done`, go on with `after` as `searched`."""

    def look() -> Response:
        row = visible_build(parts, principal, build)
        found = log_search.search(parts.log(row.id), wanted.text, wanted.after)
        document: LogSearchDocument = {
            "lines": found.lines,
            "searched": found.searched,
            "done": found.done,
        }
        return listing("log_search", [document])

    slots: CallerSlots = request.app.state.search_slots
    with slots.held(principal):
        return await to_thread.run_sync(look, limiter=request.app.state.search_threads)
