"""The page of VMs, beside what the clouds show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from vmrunner.lib import units
from vmrunner.model import Instance, InstanceState, Kind, TokenScope
from vmrunner.server import html_times
from vmrunner.server.fleet_cache import CloudLook
from vmrunner.server.html_tables import Cell, RowAction, TableLink, TableRow, table
from vmrunner.server.routes.build_page import SHORT
from vmrunner.server.routes.common import IN_TURN, Parts, Reader
from vmrunner.services import fleet
from vmrunner.services.fleet import FleetVm

router = APIRouter(include_in_schema=False)


@router.get("/vms", dependencies=[IN_TURN])
def vms(
    request: Request, parts: Parts, principal: Reader, gone: Annotated[bool, Query()] = False
) -> Response:
    """VMs: why each lives, and how long it still may; why it died. Who sees all sees them beside
    the clouds."""
    rows = parts.ledger.instances.list(
        active=None if gone else True, limit=500, own=principal.labels
    )
    notes: list[str] = []
    now = parts.now()
    age: float | None = None
    pairs: list[tuple[Instance | None, Any]] = [(row, None) for row in rows]
    if not principal.labels:
        look: CloudLook = request.app.state.cloud_look
        seen = look.seen()
        if seen is None:
            notes.append("The first look at the clouds is under way.")
        else:
            view, age = seen
            notes.append(
                Markup("The clouds as they were {}.").format(html_times.ago(now - age, now))
            )
            notes += [f"Not read: {text}." for text in view.unread]
            pairs = fleet.beside(parts.ledger, rows, view.shown)
    links = (
        TableLink(text="alive", link="/vms", here=not gone),
        TableLink(text="gone too", link="/vms?gone=true", here=gone),
    )
    may = bool({TokenScope.SUBMIT, TokenScope.ADMIN} & principal.scopes)
    listed = [vm for vm in fleet.timed(parts.providers, pairs) if gone or not _seen_before(vm, age)]
    names = parts.ledger.builds.names({vm.row.build for vm in listed if vm.row and vm.row.build})
    dying = any(_death(vm.row) for vm in listed)
    found = [_row(vm, age, names, may=may, dying=dying) for vm in listed]
    columns = (
        "VM", "State", "In the cloud", "Lived for" if gone else "Why it lives", "Machine",
        "Lived" if gone else "Age", "Ends", *(["Died of"] if dying else []),
    )  # fmt: skip
    note = Markup(" ").join(notes)
    return table(
        request,
        "VMs",
        columns,
        found,
        empty="No VM is there. Each build gets one, and it is destroyed after it.",
        note=note,
        links=links,
    )


def _seen_before(vm: FleetVm, age: float | None) -> bool:
    """True for what is gone since the clouds were looked at."""
    died = vm.row.gone_at if vm.row else None
    return died is not None and age is not None and died > vm.now - age


def _row(
    vm: FleetVm, age: float | None, names: Mapping[str, str], *, may: bool, dying: bool
) -> TableRow:
    row = vm.row
    dead = row is not None and row.gone_at is not None
    created = row.created_at if row else vm.cloud.created_at if vm.cloud else None
    remaining = _remaining(vm)
    why = _why(row, names)
    action = RowAction(
        name="Destroy",
        post=f"/api/v1/instances/{vm.id}/destroy",
        ask=f"Destroy {vm.id} now? {_ending(row, why)}",
    )
    return TableRow(
        key=vm.id,
        cells=(
            Cell(text=vm.id),
            Cell(text=row.state.value, kind=row.state.value)
            if row
            else Cell(text="no row", kind="late"),
            Cell(text="" if age is None or (dead and vm.cloud is None) else _cloud(vm, age)),
            why,
            Cell(text=f"{row.provider} {row.offer.machine_type}" if row else ""),
            Cell(text=_age(created, row, vm.now), kind="number"),
            remaining,
            *([Cell(text=_death(row), kind="named")] if dying else []),
        ),
        actions=(action,) if may and row is not None and not dead else (),
    )


def _ending(row: Instance | None, why: Cell) -> str:
    """Words on what the end of a VM means for its build."""
    if row is None or not row.build:
        return "No build is on it."
    if row.state is InstanceState.HELD:
        return f"It is held for a build that has ended, which stays as it ended: {why.text}."
    return f"Its build ends with it, as cancelled: {why.text}."


def _age(created: float | None, row: Instance | None, now: float) -> object:
    """The time that it lives, or lived."""
    if row is not None and row.gone_at is not None:
        return units.span(row.gone_at - row.created_at)
    return html_times.lasting(created, now)


def _remaining(vm: FleetVm) -> Cell:
    """The time until it must end."""
    end = vm.row.end if vm.row else vm.cloud.expires_at if vm.cloud else None
    if end is None or (vm.row is not None and vm.row.gone_at is not None):
        return Cell(kind="number")
    if end > vm.now:
        return Cell(text=html_times.until(end, vm.now), kind="number")
    return Cell(text=f"{units.span(vm.now - end)} late", kind="number late")


def _cloud(vm: FleetVm, age: float) -> str:
    if vm.cloud is None:
        new = vm.row is not None and vm.row.created_at > vm.now - age
        return "not looked yet" if new else "not seen"
    kind = vm.cloud.ref.kind
    return vm.cloud.power.value if kind is Kind.INSTANCE else f"{kind.value} {vm.cloud.ref.id}"


def _why(row: Instance | None, names: Mapping[str, str]) -> Cell:
    if row is None:
        return Cell(text="the reaper will decide: nothing in the ledger names it")
    if row.build:
        name, short = names.get(row.build, ""), f"#{row.build[2:SHORT]}"
        shown = f"build {name} {short}" if name else f"build {short}"
        return Cell(text=shown, kind="named", link=f"/builds/{row.build}")
    return Cell(text=f"pool {row.pool}, waits for a build")


def _death(row: Instance | None) -> str:
    if row is None:
        return ""
    return " ".join(filter(None, [row.death and row.death.value, row.message]))
