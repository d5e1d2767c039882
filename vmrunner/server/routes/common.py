"""Dependencies of routes, and what a principal sees."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar, cast

from anyio import to_thread
from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from vmrunner.errors import Conflict
from vmrunner.lib.config_section import Section
from vmrunner.model import BuildRecord, Instance, Principal, TokenScope
from vmrunner.server.authentication import Requires
from vmrunner.server.change_watcher import ChangeWatcher
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.problems import HttpProblem
from vmrunner.server.tenant_turns import TenantTurns
from vmrunner.services import ceilings, costs, people
from vmrunner.services.document_types import BuildDocument
from vmrunner.services.documents import build_document, envelope

T = TypeVar("T")


# Coroutines: for what is none FastAPI asks a thread, each time.
async def _parts(request: Request) -> ServerParts:
    return cast("ServerParts", request.app.state.parts)


async def _watcher(request: Request) -> ChangeWatcher:
    return cast("ChangeWatcher", request.app.state.watcher)


Parts = Annotated[ServerParts, Depends(_parts)]
Watcher = Annotated[ChangeWatcher, Depends(_watcher)]
Reader = Annotated[Principal, Depends(Requires(TokenScope.READ))]
Submitter = Annotated[Principal, Depends(Requires(TokenScope.SUBMIT))]
WholeReader = Annotated[Principal, Depends(Requires(TokenScope.READ, whole=True))]
Admin = Annotated[Principal, Depends(Requires(TokenScope.ADMIN, whole=True))]
Scraper = Annotated[Principal, Depends(Requires(TokenScope.METRICS, whole=True))]


async def _in_turn(request: Request, principal: Reader) -> AsyncIterator[None]:
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    turns = cast("TenantTurns", request.app.state.tenant_turns)
    async with turns.turn(principal.tenant if principal.labels else principal.actor, gone):
        yield


#: A route for readers whose answer takes much of the processor: tenants take turns. The turn ends
#: before the answer is sent: its reader may be slow.
IN_TURN: Final = Depends(_in_turn, scope="function")


#: Query parameters that may stand several times.
REPEATED: Final = frozenset({"actor", "label", "result", "state"})


async def _refuse_unread(request: Request) -> None:
    route = request.scope["route"]
    if request.query_params and not route.dependant.query_params:
        name = next(iter(request.query_params))
        has_body = "requestBody" in (route.openapi_extra or {})
        fix = "say it in the body" if has_body else "leave it out"
        raise HttpProblem(422, f"{name}: no such parameter", fix=fix)
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if count > 1 and name not in REPEATED:
            raise HttpProblem(422, f"{name}: it is there {count} times", fix="say it once")


#: For all routes of the API: of a parameter that stands twice, one would count silently, and to
#: overlook `?dry_run=true` where there is no such parameter would kill.
QUERY_READ: Final = Depends(_refuse_unread)


class EmptyBody(Section):
    """Nothing more needs to be said."""


class Parameters(BaseModel):
    """Query parameters: an unknown one is an error."""

    model_config = ConfigDict(extra="forbid")


#: A number that every database holds.
Number = Annotated[int, Field(ge=0, le=2**53)]


class PageParameters(Parameters):
    """A page of a list, newest first. Each list has an `after` of its own kind of ids: with one of
    another kind it would begin anew."""

    limit: int = Field(default=100, ge=1, le=1000)


class Documents(JSONResponse):
    """Documents as JSON. What no encoding holds is escaped, as `-o json` does it: a build calls its
    files as it likes."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False).encode()


def text_of(document: Mapping[str, Any]) -> bytes:
    """A document as JSON, as `Documents` have it."""
    return bytes(Documents(document).body)


def joined_listing(kind: str, items: Iterable[bytes], *, next_: str | None = None) -> Response:
    """The same as `listing`, of documents that are JSON already."""
    nothing: Mapping[str, Any] = envelope(kind, ())
    begin, _, end = text_of(nothing if next_ is None else {**nothing, "next": next_}).partition(
        b"[]"
    )
    body = b"".join((begin, b"[", b",".join(items), b"]", end))
    return Response(body, media_type=Documents.media_type)


def listing(
    kind: str,
    items: Iterable[Mapping[str, Any]],
    *,
    next_: str | None = None,
    status: int = 200,
    warnings: Sequence[str] = (),
    **more: bool | list[str],
) -> JSONResponse:
    """Documents in the envelope of `-o json`, and where the next page begins; `more` stands
    beside."""
    document: dict[str, Any] = {**envelope(kind, items), **more}
    if warnings:
        document["warnings"] = list(warnings)
    if next_ is not None:
        document["next"] = next_
    return Documents(document, status)


async def ask_cloud(request: Request, work: Callable[[], T]) -> T:
    """Do what may ask a cloud, in a thread of its own: that may hang."""
    return await to_thread.run_sync(work, limiter=request.app.state.cloud_threads)


async def ask_store(request: Request, work: Callable[[], T]) -> T:
    """Do the same of what reads or writes the store."""
    return await to_thread.run_sync(work, limiter=request.app.state.store_threads)


def visible_build(parts: ServerParts, principal: Principal, word: str) -> BuildRecord:
    """Find a build among those that the principal sees. Raises NotFound."""
    return parts.ledger.builds.find(word, principal.labels)


def visible_sandbox(parts: ServerParts, principal: Principal, word: str) -> BuildRecord:
    """Find a sandbox among them. Raises NotFound, Conflict."""
    row = visible_build(parts, principal, word)
    if row.spec.sandbox_ttl is None:
        raise Conflict(f"{row.id} is a build, no sandbox")
    return row


def enterable_build(
    parts: ServerParts, principal: Principal, word: str, *, sandbox: bool
) -> BuildRecord:
    """Find a build or a sandbox whose container the principal may use. Raises NotFound, Conflict,
    NotAllowed."""
    find = visible_sandbox if sandbox else visible_build
    row = find(parts, principal, word)
    ceilings.check_entry(row, principal.quota)
    return row


def costed(parts: ServerParts, build: BuildRecord) -> BuildRecord:
    """The build with what it has cost until now."""
    return costs.until_now(parts.ledger, parts.providers, [build])[0]


def build_documents(parts: ServerParts, rows: Iterable[BuildRecord]) -> list[BuildDocument]:
    """Builds for programs, with the names of who submitted them, and how they came by their VMs.
    It asks the ledger."""
    named = people.named(parts.ledger, rows)
    starts = parts.ledger.instances.starts([row.instance for row in named if row.instance])
    return [build_document(row, starts.get(row.instance or "")) for row in named]


def visible_instance(parts: ServerParts, principal: Principal, word: str) -> Instance:
    """The same of a VM: its build's principal sees it. Raises NotFound, Conflict."""
    return parts.ledger.instances.find(word, principal.labels)
