"""Looking at some VMs, by name.

A deleted VM is not shown as dead: it is not shown at all, and neither is a new one that is not
visible yet. And a VM that is off does not say why. Both are on record in the zone's operations,
which are asked about those VMs alone: an operation that is done, without an error, and was the VM's
end, is a death that is seen; and only `compute.instances.guestTerminate` is the guest's own doing.
A host that fails or is maintained, and an operator who stops a VM, are not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from vmrunner.errors import CredentialsRefused
from vmrunner.model import MORTAL, TAG, Key, Kind, Power, Ref, Scope, Seen
from vmrunner.providers.common.batches import batches
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.merge_iterators import merged
from vmrunner.providers.gce.client import DONE, LIST, OPERATIONS, GceClient, pb
from vmrunner.providers.gce.labels import tags
from vmrunner.providers.gce.resources import SUSPENSION, last, seen, when

PAGE: Final = 500  # items, the most that Compute Engine gives
NAMES: Final = 100  # in one filter, which is a part of the URL
#: A zone that keeps its answer back for longer is not waited for: the next look is soon.
ZONE_TIMEOUT: Final = 10.0  # seconds
_REMEMBERED: Final = 4096

#: Operations that are a VM's end, by any cause.
_ENDS: Final = re.compile(r"delete|compute\.instances\.(preempted|.*[dD]elete.*)")
_PREEMPTED: Final = "compute.instances.preempted"
_BY_GUEST: Final = "compute.instances.guestTerminate"
#: Why a VM stops or ends, besides.
_STOPS: Final = (
    "stop",
    "suspend",
    _BY_GUEST,
    "compute.instances.hostError",
    "compute.instances.terminateOnHostMaintenance",
)
#: A build's VM, or the builder of an image.
_ROLES: Final = tuple(role.value for role in MORTAL)


@dataclass(frozen=True, slots=True)
class _Record:
    """The operations' record of one VM. `cause`: the first that stopped or ended it; "": none."""

    cause: str = ""
    preempted: bool = False
    dead: bool = False


class InstanceDescriber:
    """Looks in one project. Thread-safe."""

    def __init__(self, client: GceClient, installation: str, *, public: bool) -> None:
        """`public`: over which address SSH goes."""
        self._client = client
        self._installation = installation
        self._public = public
        self._lock = threading.Lock()
        self._causes: dict[Ref, _Record] = {}  # why VMs stop that are still there: asked once

    def look(self, keys: Sequence[Key]) -> dict[Key, Seen]:
        """Return all that can be seen, zone beside zone: one that cannot be read hides no other.
        Raises `CallFailed` when there is nothing else."""
        found: dict[Key, Seen] = {}
        failures: list[CallFailed] = []
        parts = [
            partial(self._part, scope, {key.instance: key for key in batch})
            for scope in dict.fromkeys(key.scope for key in keys)
            for batch in batches([key for key in keys if key.scope == scope], NAMES)
        ]
        for item in merged(parts):
            if isinstance(item, CallFailed):
                failures.append(item)
            else:
                found[item[0]] = item[1]
        if failures and not found:
            raise failures[0]
        return found

    # --- within ---

    def _part(
        self, scope: Scope, keys: Mapping[str, Key]
    ) -> Iterator[tuple[Key, Seen] | CallFailed]:
        """Some VMs of one zone."""
        stopping: dict[str, Seen] = {}
        unmatched = dict(keys)
        try:
            for item in self._listed(LIST, scope, f'name eq "{_any(keys)}"'):
                key = unmatched.get(item.name)
                if key is None or not (key.ref or self._ours(item)):
                    continue
                del unmatched[item.name]
                view = seen(scope, item, public=self._public)
                if item.status in SUSPENSION:
                    yield key, view  # no guest and no failing host does that
                elif view.power in (Power.STOPPING, Power.STOPPED):
                    stopping[item.name] = view
                else:
                    yield key, view
            lost = {name: key for name, key in unmatched.items() if key.ref is not None}
            records = self._records(scope, stopping, lost)
        except CallFailed as failed:
            yield failed
            return
        for name, view in stopping.items():
            yield keys[name], _because(view, records.get(name, _Record()))
        for name, key in lost.items():
            record = records.get(name, _Record())
            if record.dead:
                view_of_dead = Seen(ref=Ref(scope, Kind.INSTANCE, name), power=Power.DEAD)
                yield key, _because(view_of_dead, record)

    def _ours(self, item: Any) -> bool:
        """True if the VM is ours: an id of ours that was copied into a name proves nothing."""
        vm_tags = tags(item.labels)
        own = vm_tags.get(f"{TAG}installation") == self._installation
        return own and vm_tags.get(f"{TAG}role") in _ROLES

    def _records(
        self, scope: Scope, stopping: Mapping[str, Seen], lost: Mapping[str, Key]
    ) -> dict[str, _Record]:
        """Raises `CallFailed` where they may be told another time; without the right to read them
        there is no cause."""
        before = {name: self._causes.get(view.ref) for name, view in stopping.items()}
        remembered = {name: record for name, record in before.items() if record is not None}
        wanted = [name for name in (*stopping, *lost) if name not in remembered]
        if not wanted:
            return remembered
        pattern = f'targetLink eq ".*/instances/{_any(wanted)}"'
        by_instance: dict[str, list[Any]] = {}
        try:
            for operation in self._listed(OPERATIONS, scope, pattern):
                by_instance.setdefault(last(operation.target_link), []).append(operation)
        except CallFailed as failed:
            if not isinstance(failed.error, CredentialsRefused):
                raise
        fresh = {name: _record(operations) for name, operations in by_instance.items()}
        with self._lock:
            for name in stopping.keys() & fresh.keys():
                if fresh[name].cause:
                    self._causes[stopping[name].ref] = fresh[name]
            while len(self._causes) > _REMEMBERED:
                del self._causes[next(iter(self._causes))]
        return remembered | fresh

    def _listed(self, api: Any, scope: Scope, wanted: str) -> Iterator[Any]:
        return listed(self._client, api, zone=scope.place, filter=wanted, timeout=ZONE_TIMEOUT)


def listed(client: GceClient, api: Any, **params: Any) -> Iterator[Any]:
    """Yield all items of one list, page by page."""
    query: dict[str, Any] = {"max_results": PAGE, **params}
    while True:
        page = pb(client(api, **query))
        yield from page.items
        if not page.next_page_token:
            return
        query["page_token"] = page.next_page_token


def _any(names: Sequence[str] | Mapping[str, object]) -> str:
    """A regular expression for these names, which have no signs of one."""
    return f"({'|'.join(names)})"


def _record(operations: Sequence[Any]) -> _Record:
    """Sum up all operations on one VM. One that failed was nothing, and what was before it was
    woken explains no end."""
    well = [operation for operation in operations if not list(operation.error.errors)]
    woken = max(
        (_begun(operation) for operation in well if operation.operation_type == "resume"),
        default=0.0,
    )
    well = [operation for operation in well if _begun(operation) >= woken]
    ends = [operation for operation in well if _ENDS.fullmatch(operation.operation_type)]
    causes = [
        operation for operation in well if operation in ends or operation.operation_type in _STOPS
    ]
    first = min(causes, key=_begun, default=None)
    return _Record(
        cause=first.operation_type if first is not None else "",
        preempted=any(operation.operation_type == _PREEMPTED for operation in ends),
        dead=any(operation.status == DONE for operation in ends),
    )


def _begun(operation: Any) -> float:
    return when(operation.insert_time) or 0.0


def _because(view: Seen, record: _Record) -> Seen:
    return replace(
        view,
        detail=record.cause or view.detail,
        preempted=record.preempted,
        self_ended=record.cause == _BY_GUEST,
    )
