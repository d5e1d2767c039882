"""Caches, as documents and as a page: a tenant's own, and no other's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from markupsafe import Markup
from pydantic import Field

from vmrunner.lib import units
from vmrunner.model import TokenScope
from vmrunner.model.caches import MOST_CACHES
from vmrunner.server import html_times, request_bodies
from vmrunner.server.html_tables import Cell, RowAction, TableRow, table
from vmrunner.server.routes.answers import answers, json_body
from vmrunner.server.routes.common import (
    IN_TURN,
    EmptyBody,
    Parameters,
    Parts,
    Reader,
    Submitter,
    listing,
)
from vmrunner.services import caches

router = APIRouter(tags=["caches"])
pages = APIRouter(include_in_schema=False)
_SHOWN = 500


class CacheParameters(Parameters):
    limit: int = Field(default=1000, ge=1, le=MOST_CACHES)


@router.get("/caches", responses=answers("CachePage", problems=(429,)), dependencies=[IN_TURN])
def list_caches(
    parts: Parts, principal: Reader, wanted: Annotated[CacheParameters, Query()]
) -> JSONResponse:
    """The caches that the principal's builds left, those used last first."""
    found = parts.ledger.caches.list(caches.visible_to(principal), wanted.limit)
    return listing("cache", map(caches.cache_document, found))


@router.post(
    "/caches/{cache}/remove",
    responses=answers("CachePage", problems=(409,)),
    openapi_extra=json_body(EmptyBody, {}),
)
async def remove_cache(
    cache: str, request: Request, parts: Parts, principal: Submitter
) -> JSONResponse:
    """Remove one: no build gets it from then on."""
    await request_bodies.model(request, EmptyBody)
    tenant = caches.visible_to(principal)
    found = await run_in_threadpool(caches.remove, parts.ledger, cache, tenant, by=principal.actor)
    return listing("cache", [caches.cache_document(found)])


@pages.get("/caches", dependencies=[IN_TURN])
def cache_page(request: Request, parts: Parts, principal: Reader) -> Response:
    """The same for people; who sees all sees whose each is."""
    may = bool({TokenScope.SUBMIT, TokenScope.ADMIN} & principal.scopes)
    now, whole = parts.now(), not principal.labels
    rows = [
        TableRow(
            key=cache.id,
            cells=(
                Cell(text=cache.key, kind="wrap"),
                Cell(text=cache.path, kind="wrap"),
                Cell(text=cache.scope),
                *([Cell(text=cache.tenant)] if whole else []),
                Cell(text=units.amount(cache.size), kind="number"),
                Cell(text=html_times.ago(cache.used_at, now)),
                Cell(text=cache.build, link=f"/builds/{cache.build}"),
            ),
            actions=(
                RowAction(
                    name="Remove",
                    post=f"/api/v1/caches/{cache.id}/remove",
                    ask=f"Remove the cache {cache.key[:80]}? No build gets it any more; the next"
                    " one makes its own.",
                ),
            )
            if may
            else (),
        )
        for cache in parts.ledger.caches.list(caches.visible_to(principal), _SHOWN)
    ]
    columns = ("Key", "Path", "Scope", *(["Tenant"] if whole else []), "Size", "Used", "Build")
    note = f"Those used last, {_SHOWN} at most." if len(rows) == _SHOWN else ""
    return table(
        request,
        "Caches",
        columns,
        rows,
        note=note,
        empty=Markup(
            "No build has left a cache. One with <code>--cache KEY=PATH</code>, or"
            " <code>caches</code> in its job file, leaves that directory for the builds after it."
        ),
    )
