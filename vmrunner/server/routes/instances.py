"""VMs: listed, shown, ended."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from vmrunner.server.routes.common import (
    PageParameters,
    Parts,
    Reader,
    Submitter,
    listing,
    visible_instance,
)
from vmrunner.services.destroy import destroy
from vmrunner.services.documents import instance_document

router = APIRouter(tags=["instances"])


class InstanceFilter(PageParameters):
    """`state=active`: those that are not gone; `build`: its alone."""

    state: Literal["active", "gone"] | None = None
    build: str | None = None


@router.get("/instances")
def list_instances(
    parts: Parts, principal: Reader, wanted: Annotated[InstanceFilter, Query()]
) -> JSONResponse:
    """The VMs of the builds that the token sees, newest first; without a filter all."""
    rows = parts.ledger.instances.list(
        build=wanted.build,
        active=None if wanted.state is None else wanted.state == "active",
        limit=wanted.limit + 1,
        labels=principal.labels,
        before=wanted.after,
    )
    shown = rows[: wanted.limit]
    next_ = shown[-1].id if len(rows) > wanted.limit else None
    return listing("instance", map(instance_document, shown), next_=next_)


@router.get("/instances/{instance}")
def show_instance(instance: str, parts: Parts, principal: Reader) -> JSONResponse:
    """One VM, as the ledger has it."""
    return listing("instance", [instance_document(visible_instance(parts, principal, instance))])


@router.post("/instances/{instance}/destroy")
def destroy_instance(instance: str, parts: Parts, principal: Submitter) -> JSONResponse:
    """End a VM now, and its build. `result`: gone, gone_before, asked (it goes on), refused."""
    row = visible_instance(parts, principal, instance)
    done = destroy(parts.ledger, parts.providers, row, by=principal.actor)
    parts.ledger.actions.add(principal.actor, "destroy", row.id, parts.now(), done.result.value)
    return JSONResponse({"id": row.id, "result": done.result.value, "error": done.error or None})
