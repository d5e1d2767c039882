"""VMs of the ledger beside what the clouds show of ours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrunner.model import Kind, Power
from vmrunner.services.documents import instance_document, iso

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Instance, Resource
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.services import document_types as types


@dataclass(frozen=True, slots=True)
class FleetVm:
    """A VM: a row of the ledger, what the cloud shows, or both."""

    row: Instance | None
    now: float  # by the provider's clock
    cloud: Resource | None = None

    @property
    def id(self) -> str:
        if self.row is not None:
            return self.row.id
        assert self.cloud is not None
        return self.cloud.instance or self.cloud.ref.id


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """All that is to be shown. `unread`: what of the clouds could not be read."""

    vms: Sequence[FleetVm]
    unread: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudView:
    """Things of ours in the clouds, by tag; `unread`: what could not be read."""

    shown: Sequence[Resource]
    unread: Sequence[str]


def fleet(
    ledger: Ledger,
    providers: ProviderSet,
    *,
    gone: bool,
    limit: int,
    only: Sequence[Instance] | None = None,
) -> Fleet:
    """Ask all clouds, and return what they show beside the rows. `gone`: rows of what is gone too,
    the newest `limit`; else all that are open, since what is there would seem to have none.
    `only`: these rows, and nothing else that is there."""
    if only is not None:
        seen, names = look(ledger, providers), {row.id for row in only}
        theirs = [resource for resource in seen.shown if resource.instance in names]
        return Fleet(vms=timed(providers, beside(ledger, only, theirs)), unread=seen.unread)
    rows = ledger.instances.list(active=None if gone else True, limit=limit if gone else None)
    seen = look(ledger, providers)
    return Fleet(vms=timed(providers, beside(ledger, rows, seen.shown)), unread=seen.unread)


def look(ledger: Ledger, providers: ProviderSet) -> CloudView:
    """Ask every provider. One that fails hides no other."""
    drivers, broken = providers.opened()
    ours: list[Resource] = []
    unread = [f"{name}: {error}" for name, error in broken.items()]
    for name, provider in drivers.items():
        try:
            for page in provider.sweep():
                if page.error is not None:
                    unread.append(f"{name}: {page.scope}: {page.error}")
                ours += [
                    resource
                    for resource in page.resources
                    if resource.tag("installation") == ledger.installation
                    and resource.power is not Power.DEAD
                ]
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the others are shown
            unread.append(f"{name}: {type(error).__name__}: {error}")
    return CloudView(shown=ours, unread=unread)


def beside(
    ledger: Ledger, rows: Iterable[Instance], shown: Iterable[Resource]
) -> list[tuple[Instance | None, Resource | None]]:
    """Pair each row with its VM; what is there without a row that was listed follows."""
    unmatched = {resource.ref: resource for resource in shown}
    vms: dict[str | None, list[Resource]] = {}
    for resource in unmatched.values():
        if resource.ref.kind is Kind.INSTANCE:
            vms.setdefault(resource.instance, []).append(resource)
    found: list[tuple[Instance | None, Resource | None]] = []
    for row in rows:
        mine = [r for r in vms.get(row.id, ()) if r.ref in unmatched]
        recorded = unmatched.get(row.ref) if row.ref else None
        best = recorded or (mine[0] if mine else None)
        if best is not None:
            del unmatched[best.ref]
        found.append((row, best))
    named = {r.instance for r in unmatched.values() if r.instance}
    rows_by_id = {row.id: row for row in ledger.instances.these(named)}
    return found + [(rows_by_id.get(other.instance or ""), other) for other in unmatched.values()]


def timed(
    providers: ProviderSet, found: Iterable[tuple[Instance | None, Resource | None]]
) -> list[FleetVm]:
    """Return them, each at the time of its driver."""
    found = list(found)
    rows = {(row.provider, row.scope) for row, _ in found if row}
    times = {place: providers.time_at(*place) for place in rows}
    here = time.time()
    return [FleetVm(r, times[r.provider, r.scope] if r else here, seen) for r, seen in found]


def fleet_document(
    vm: FleetVm, *, cloud: bool
) -> types.InstanceDocument | types.SeenInstanceDocument | types.StrayDocument:
    """A VM; with `cloud` beside what the cloud shows of it."""
    seen = None if vm.cloud is None else _cloud_document(vm.cloud)
    if vm.row is not None:
        row = instance_document(vm.row)
        return {**row, "cloud": seen} if cloud else row
    assert seen is not None
    return {"id": vm.id, "state": None, "cloud": seen}


def _cloud_document(seen: Resource) -> types.CloudDocument:
    return {
        "kind": seen.ref.kind,
        "scope": str(seen.ref.scope),
        "ref": seen.ref.id,
        "power": seen.power,
        "created_at": iso(seen.created_at),
        "expires_at": iso(seen.expires_at),
    }
