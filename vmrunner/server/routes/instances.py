"""VMs: listed, shown, ended."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field

from vmrunner.ledger.row_reading import Readable
from vmrunner.model import Instance, Principal
from vmrunner.server import request_bodies
from vmrunner.server.authentication import refuse_filtered
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.routes.answers import answers, json_body, polled
from vmrunner.server.routes.common import (
    IN_TURN,
    EmptyBody,
    PageParameters,
    Parts,
    Reader,
    Submitter,
    ask_cloud,
    listing,
    visible_instance,
)
from vmrunner.services import fleet as fleets
from vmrunner.services.destroy import destroy
from vmrunner.services.document_types import DestroyDocument
from vmrunner.services.documents import instance_document

router = APIRouter(tags=["instances"])


class InstanceFilter(PageParameters):
    """`state=active`: those that are not gone; `build`: its alone; `cloud`: beside what the clouds
    show now, all of them on one page, for a token that sees all; what has no row is there where
    nothing narrows them."""

    after: str | None = Field(default=None, pattern="^vm-")
    state: Literal["active", "gone"] | None = None
    build: str | None = None
    cloud: bool = False


@router.get("/instances", responses=polled("FleetPage", problems=(429,)), dependencies=[IN_TURN])
def list_instances(
    request: Request,
    parts: Parts,
    principal: Reader,
    wanted: Annotated[InstanceFilter, Query()],
) -> JSONResponse:
    """The VMs of the builds that the token sees, newest first; without a filter all."""
    if wanted.cloud:
        return _beside_clouds(request.app.state.look_slots, parts, principal, wanted)
    rows = _rows(parts, principal, wanted, wanted.limit + 1)
    # One that cannot be read is no end of the list.
    names = sorted({row.id for row in rows} | rows.unread, reverse=True)
    next_ = names[wanted.limit - 1] if len(names) > wanted.limit else None
    shown = [row for row in rows if next_ is None or row.id >= next_]
    return listing("instance", map(instance_document, shown), next_=next_)


def _rows(
    parts: ServerParts, principal: Principal, wanted: InstanceFilter, limit: int
) -> Readable[Instance]:
    return parts.ledger.instances.list(
        build=wanted.build,
        active=None if wanted.state is None else wanted.state == "active",
        limit=limit,
        own=principal.labels,
        before=wanted.after,
    )


def _beside_clouds(
    slots: CallerSlots, parts: ServerParts, principal: Principal, wanted: InstanceFilter
) -> JSONResponse:
    refuse_filtered(principal)
    narrow = wanted.build is not None or wanted.after is not None or wanted.state == "gone"
    with slots.held(principal):
        found = fleets.fleet(
            parts.ledger,
            parts.providers,
            gone=wanted.state is None,
            limit=wanted.limit,
            only=_rows(parts, principal, wanted, wanted.limit) if narrow else None,
        )
    documents = [fleets.fleet_document(vm, cloud=True) for vm in found.vms]
    return listing("instance", documents, unread=list(found.unread))


@router.get("/instances/{instance}", responses=polled("InstancePage", problems=(409,)))
def show_instance(instance: str, parts: Parts, principal: Reader) -> JSONResponse:
    """One VM, as the ledger has it."""
    return listing("instance", [instance_document(visible_instance(parts, principal, instance))])


@router.post(
    "/instances/{instance}/destroy",
    responses=answers("DestroyDocument", problems=(409, 502)),
    openapi_extra=json_body(EmptyBody, {}),
)
async def destroy_instance(
    instance: str, request: Request, parts: Parts, principal: Submitter
) -> JSONResponse:
    """End a VM now, and its build. `result`: gone, gone_before, asked (it goes on), refused."""
    row = await run_in_threadpool(visible_instance, parts, principal, instance)
    await request_bodies.model(request, EmptyBody)
    done = await ask_cloud(
        request, lambda: destroy(parts.ledger, parts.providers, row, by=principal.actor)
    )
    return JSONResponse(DestroyDocument(id=row.id, result=done.result, error=done.error or None))
