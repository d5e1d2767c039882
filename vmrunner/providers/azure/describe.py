"""Looking at some VMs, by name.

A list of a group tells no state of power, and a VM's own view does. Few VMs are asked for their
views one by one; of many the list tells which are changing: those are asked, as far as there are
reads to spare, and some of the others in turn. A VM that was seen and is not found any more is
dead, since its name is never given again; but one that was first seen a moment ago, and that we did
not delete, may only be unknown yet to the part of Azure that answers. A VM that was never seen may
not be visible yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from vmrunner.errors import Throttled, Uncertain
from vmrunner.model import MORTAL, TAG, Key, Kind, Power, Ref, Scope, Seen
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import ADDRESS, INTERFACE, VM, VMS, Answer, AzureClient, part
from vmrunner.providers.azure.client import last as name_in
from vmrunner.providers.azure.resources import addresses, name_of, power, seen, tags
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.common.clock import boottime

#: So many are asked for their own view in one look, and more where there are reads to spare; so
#: many at once.
VIEWS: Final = 32
AT_ONCE: Final = 64
#: With these an interface tells its public addresses, and not their ids alone.
_EXPANDED: Final = "ipConfigurations/publicIPAddress"
#: So long after its first sight, in seconds, no absence of a VM says anything.
SETTLED: Final = 60.0
_ROLES: Final = tuple(role.value for role in MORTAL)
_REMEMBERED: Final = 20_000


@dataclass(slots=True)
class _Record:
    """Memory of a VM. `since`: its first sight; `last_seen`: its last view; `host`: where SSH goes,
    while it runs; `turn`: of its last view; `ended`: a delete of ours was accepted."""

    since: float
    last_seen: Seen | None = None
    power: Power = Power.PENDING
    spot: bool = False
    host: str = ""
    turn: int = 0
    ended: bool = False


class VmDescriber:
    """Looks in one subscription. Thread-safe."""

    def __init__(
        self,
        client: AzureClient,
        installation: str,
        *,
        public: bool,
        booted: Callable[[str], None] = lambda _: None,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        """`public`: over which address SSH goes. `booted` is told of each instance that boots no
        more."""
        self._elapsed = elapsed
        self._client = client
        self._installation = installation
        self._public = public
        self._booted = booted
        self._lock = threading.Lock()
        self._records: dict[Ref, _Record] = {}
        self._turn = 0

    def ended(self, ref: Ref) -> None:
        """Remember that a delete of ours was accepted: Azure took nothing back."""
        self._booted(ref.id)
        with self._lock:
            if ref in self._records:
                self._records[ref].ended = True

    def look(self, keys: Sequence[Key]) -> dict[Key, Seen]:
        """Return all that can be seen; one that cannot be read hides no other. Raises `CallFailed`
        when there is nothing else."""
        found: dict[Key, Seen] = {}
        failures: list[CallFailed] = []
        for scope in dict.fromkeys(key.scope for key in keys):
            keys_by_ref = {
                Ref(scope, Kind.INSTANCE, key.instance): key for key in keys if key.scope == scope
            }
            try:
                refs = (
                    list(keys_by_ref)
                    if len(keys_by_ref) <= VIEWS
                    else self._changing(scope, keys_by_ref, found)
                )
            except CallFailed as failed:
                failures.append(failed)
                continue
            if not refs:
                continue
            with ThreadPoolExecutor(min(AT_ONCE, len(refs))) as pool:
                views = pool.map(partial(self._view, keys_by_ref), refs)
                for ref, view in zip(refs, views, strict=True):
                    if isinstance(view, CallFailed):
                        failures.append(view)
                    elif view is not None and (
                        keys_by_ref[ref].ref or view.power is not Power.DEAD
                    ):
                        found[keys_by_ref[ref]] = view
        if failures and not found:
            raise failures[0]
        return found

    # --- within ---

    def _changing(
        self, scope: Scope, keys_by_ref: Mapping[Ref, Key], found: dict[Key, Seen]
    ) -> list[Ref]:
        """Put VMs that go on as they were into `found`; return the ones to ask about: changing ones
        first, then by the time since the last question."""
        listed = {name_of(item): item for item in self._client.listed(VMS, group=scope.place)}
        turns: dict[Ref, tuple[bool, int]] = {}
        for ref, key in keys_by_ref.items():
            item, record = listed.get(ref.id), self._records.get(ref)
            viewable = self._client.may_view(scope.place, ref.id)
            if item is None:
                if record is not None and viewable:
                    turns[ref] = (False, record.turn)  # dead, if its own view says so too
                continue
            settled = part(item, "properties", "provisioningState") == "Succeeded"
            if viewable:
                turns[ref] = (settled and record is not None, record.turn if record else 0)
            if record is not None and self._is_ours(key, item):
                found[key] = replace(seen(scope, item, record.host), power=record.power)
        # A view is two reads at most as a rule, three where an interface tells an address by its
        # id alone: the rest of those that are there, a quarter at least, is left to others.
        changing = sum(not calm for calm, _ in turns.values())
        most = max(VIEWS, min(changing, self._client.spare() // 4))
        return sorted(turns, key=turns.__getitem__)[:most]

    def _view(self, keys_by_ref: Mapping[Ref, Key], ref: Ref) -> Seen | CallFailed | None:
        """One VM as it is now, or as it was a moment ago while Azure allows no further look; None:
        it is not there, and never was seen."""
        if not self._client.may_view(ref.scope.place, ref.id):
            return self._last_seen(ref)
        try:
            item = self._client(VM, group=ref.scope.place, vm_name=ref.id, expand="instanceView")
        except CallFailed as failed:
            if failed.code in error_codes.MISSING:
                return self._missing(ref)
            error = failed.error
            if not isinstance(error, Throttled) or self._client.may_view(ref.scope.place, ref.id):
                return failed
            # A refusal about this VM alone says nothing of the others.
            own = Throttled(str(error.args[0]), hint=error.hint, instance=ref.id, wait=error.wait)
            return self._last_seen(ref) or CallFailed(failed.code, own)
        if "id" not in item:
            return CallFailed("", Uncertain(f"{VM.action}: no VM: {str(item)[:100]}"))
        if not self._is_ours(keys_by_ref[ref], item):
            return None
        try:
            return self._noted(ref, item)
        except CallFailed as failed:
            return failed

    def _last_seen(self, ref: Ref) -> Seen | None:
        with self._lock:
            record = self._records.get(ref)
        return record.last_seen if record is not None else None

    def _noted(self, ref: Ref, item: Answer) -> Seen:
        now, spot = power(item), part(item, "properties", "priority") == "Spot"
        if now is not Power.PENDING:
            self._booted(ref.id)
        with self._lock:
            record = self._records.setdefault(ref, _Record(self._elapsed()))
        # Another's may be what it had before it was off.
        host = record.host if now is Power.RUNNING else ""
        if now is Power.RUNNING and not host:
            host = self._host(ref.scope, item)
        with self._lock:
            self._turn += 1
            record.power, record.spot, record.host, record.turn = now, spot, host, self._turn
            record.last_seen = seen(ref.scope, item, host)
            while len(self._records) > _REMEMBERED:
                del self._records[next(iter(self._records))]
        return record.last_seen

    def _missing(self, ref: Ref) -> Seen | None:
        with self._lock:
            record = self._records.get(ref)
        if record is None:
            return None
        goes = record.ended or record.power is Power.STOPPING
        if not goes and self._elapsed() < record.since + SETTLED:
            return None
        self._booted(ref.id)
        taken = record.spot and not record.ended
        detail = "a spot VM, which Azure took back" if taken else "deleted"
        return Seen(ref=ref, power=Power.DEAD, detail=detail, preempted=taken)

    def _is_ours(self, key: Key, item: Answer) -> bool:
        """True if the VM is ours: an id of ours that was copied into a name proves nothing."""
        vm_tags = tags(item)
        own = vm_tags.get(f"{TAG}installation") == self._installation
        return key.ref is not None or (own and vm_tags.get(f"{TAG}role") in _ROLES)

    def _host(self, scope: Scope, item: Answer) -> str:
        """Address for SSH; "" while Azure does not tell it yet."""
        for attached in part(item, "properties", "networkProfile", "networkInterfaces") or ():
            with tolerated(error_codes.MISSING):
                interface = self._client(
                    INTERFACE,
                    group=scope.place,
                    network_interface_name=name_in(str(attached["id"])),
                    expand=_EXPANDED,
                )
                for private, public in addresses(interface):
                    if not self._public:
                        return private
                    if public:
                        return self._address(scope, public)
        return ""

    def _address(self, scope: Scope, public: Answer) -> str:
        """Return a public address, of which an interface may tell the id alone."""
        address = part(public, "properties", "ipAddress")
        if address is None:
            name = name_in(str(public["id"]))
            found = self._client(ADDRESS, group=scope.place, public_ip_address_name=name)
            address = part(found, "properties", "ipAddress")
        return str(address or "")
