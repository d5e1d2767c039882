"""Routes for what concerns everybody: pools, nodes, actions, audit, reaping, draining. No token
with a label filter may ask for any of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, StrictBool

from vmrunner.lib import units
from vmrunner.lib.config_section import Section, Whole
from vmrunner.model import MOST_VMS, Principal
from vmrunner.reaper.report import Report
from vmrunner.server import request_bodies
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.routes.answers import answers, json_body, polled
from vmrunner.server.routes.common import (
    Admin,
    EmptyBody,
    Parameters,
    Parts,
    WholeReader,
    ask_cloud,
    listing,
)
from vmrunner.server.routes.query_words import Duration, Pair, Provider
from vmrunner.services import audit as audits
from vmrunner.services import draining, nodes, people, pools
from vmrunner.services import reap as reaping
from vmrunner.services.document_types import DrainingDocument
from vmrunner.services.documents import (
    action_document,
    node_document,
    pool_document,
    survivor_document,
    verdict_document,
)

router = APIRouter(tags=["operations"])


class ActionParameters(Parameters):
    limit: int = Field(default=100, ge=1, le=1000)


class AuditParameters(Parameters):
    """`tag`: KEY=VALUE, of machines of any maker; `older_than`: such as 2h."""

    provider: Provider | None = None
    tag: Pair | None = None
    older_than: Duration | None = None


def _beside(name: str, other: str) -> dict[str, Any]:
    """A schema of bodies: where they give one of two texts, they give the other. null gives
    none."""
    given = {
        field: {"properties": {field: {"type": "string"}}, "required": [field]}
        for field in (name, other)
    }
    return {"if": given[name], "then": given[other]}


class AuditBody(Section):
    """The words of `GET /audit`."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [_beside("tag", "older_than"), _beside("older_than", "tag")],
        }
    )

    provider: Provider | None = None
    tag: Pair | None = None
    older_than: Duration | None = None


class ReapBody(Section):
    """`orphans`: also those that the cap holds back."""

    provider: Provider | None = None
    dry_run: StrictBool = False
    orphans: StrictBool = False


class DrainBody(Section):
    """`off`: launch again."""

    off: StrictBool = False


class ResizeBody(Section):
    """The number of VMs that the pool keeps ready."""

    size: Whole = Field(ge=0, le=MOST_VMS)


@router.get("/pools", responses=polled("PoolPage"))
def list_pools(parts: Parts, _: WholeReader) -> JSONResponse:
    """The pools: what each wants, has, serves, costs."""
    return listing("pool", map(pool_document, pools.status(parts.ledger, parts.providers)))


@router.get("/pools/{pool}", responses=polled("PoolPage"))
def show_pool(pool: str, parts: Parts, _: WholeReader) -> JSONResponse:
    """One pool, and why it is empty."""
    return listing("pool", [pool_document(pools.one(parts.ledger, parts.providers, pool))])


@router.post(
    "/pools/{pool}/resize",
    responses=answers("PoolPage"),
    openapi_extra=json_body(ResizeBody, {"size": 2}),
)
async def resize_pool(pool: str, request: Request, parts: Parts, admin: Admin) -> JSONResponse:
    """Another size, until the configuration changes."""
    body = await request_bodies.model(request, ResizeBody)
    await run_in_threadpool(pools.resize, parts.ledger, pool, body.size, by=admin.actor)
    return await run_in_threadpool(show_pool, pool, parts, admin)


@router.post(
    "/pools/{pool}/drain",
    responses=answers("PoolPage"),
    openapi_extra=json_body(EmptyBody, {}),
)
async def drain_pool(pool: str, request: Request, parts: Parts, admin: Admin) -> JSONResponse:
    """End its VMs that wait, and make no more."""
    await request_bodies.model(request, EmptyBody)
    await run_in_threadpool(pools.drain, parts.ledger, pool, by=admin.actor)
    return await run_in_threadpool(show_pool, pool, parts, admin)


@router.get("/nodes", responses=answers("NodePage"))
def list_nodes(parts: Parts, _: WholeReader) -> JSONResponse:
    """The engines, and which of them reaps."""
    return listing(
        "node", map(node_document, nodes.status(parts.ledger, parts.ledger.engines.now()))
    )


@router.get("/actions", responses=answers("ActionPage"))
def list_actions(
    parts: Parts, _: WholeReader, wanted: Annotated[ActionParameters, Query()]
) -> JSONResponse:
    """List actions of users that concern no build, newest first."""
    actions = parts.ledger.actions.latest(wanted.limit)
    names = people.of_actors(parts.ledger, {action.actor for action in actions})
    return listing("action", [action_document(action, names) for action in actions])


@router.get("/audit", responses=answers("SurvivorPage", problems=(429, 502)))
def audit(
    request: Request,
    parts: Parts,
    principal: WholeReader,
    wanted: Annotated[AuditParameters, Query()],
) -> JSONResponse:
    """The cloud against the ledger: what is alive and should not be. Kills nothing."""
    return _audit(request, parts, principal, wanted)


@router.post(
    "/audit",
    responses=answers("SurvivorPage", problems=(502,)),
    openapi_extra=json_body(AuditBody, {"older_than": "6h", "tag": "team=ci"}),
)
async def audit_by_body(request: Request, parts: Parts, principal: WholeReader) -> JSONResponse:
    """The same, for who sends what to look at as a body."""
    body = await request_bodies.model(request, AuditBody)
    return await run_in_threadpool(_audit, request, parts, principal, body)


def _audit(
    request: Request, parts: ServerParts, principal: Principal, wanted: AuditParameters | AuditBody
) -> JSONResponse:
    tag, age = wanted.tag, wanted.older_than
    slots: CallerSlots = request.app.state.look_slots
    with slots.held(principal):
        found = audits.audit(
            parts.ledgers,
            parts.providers,
            parts.limits().limits,
            provider=wanted.provider,
            tag=None if tag is None else units.pair(tag, "tag"),
            older_than=None if age is None else units.duration(age, "older_than"),
        )
    return listing("survivor", map(survivor_document, found))


@router.post(
    "/reap",
    responses=answers("VerdictPage", problems=(502,)),
    openapi_extra=json_body(ReapBody, {"dry_run": True}),
)
async def reap(request: Request, parts: Parts, admin: Admin) -> JSONResponse:
    """One pass of the reaper: what it found and did. All that is said is in the body."""
    body = await request_bodies.model(request, ReapBody)
    report = await ask_cloud(request, lambda: _reap(parts, body, admin.actor))
    return listing(
        "verdict",
        map(verdict_document, report.lines),
        alarms=list(report.alarms),
        unread=list(report.unread),
    )


def _reap(parts: ServerParts, body: ReapBody, by: str) -> Report:
    return reaping.reap(
        parts.ledgers,
        parts.providers,
        parts.limits(),
        parts.paths,
        provider=body.provider,
        dry_run=body.dry_run,
        orphans=body.orphans,
        by=by,
    )


@router.post(
    "/drain",
    responses=answers("DrainingDocument"),
    openapi_extra=json_body(DrainBody, {"off": False}),
)
async def drain(request: Request, parts: Parts, admin: Admin) -> JSONResponse:
    """Stop launching, everywhere; what runs goes on."""
    body = await request_bodies.model(request, DrainBody)

    await run_in_threadpool(draining.drain, parts.ledger, off=body.off, by=admin.actor)
    parts.wake()
    return JSONResponse(DrainingDocument(draining=not body.off))
