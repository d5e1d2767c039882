"""Deleting: one call a thing, several at once; none holds another back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from vmrunner.model import Fate, Kind, Outcome, Power, Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.gce import error_codes
from vmrunner.providers.gce.client import (
    DELETE,
    DELETE_ADDRESS,
    DELETE_DISK,
    DELETE_GLOBAL_ADDRESS,
    DELETE_IMAGE,
    DELETE_SNAPSHOT,
    GET,
    IMAGE,
    UNPROTECT,
    GceClient,
)
from vmrunner.providers.gce.resources import is_left, power

#: As many as an engine deletes in one turn, and more: a call takes its time, and no work here.
AT_ONCE: Final = 64

#: How a protected VM is refused; the code is others' too.
_PROTECTED: Final = "protected against deletion"
_NOT_READY: Final = "resourceNotReady"
#: A limit with these words is that of one thing, and not the project's.
_OF_ONE: Final = "rate exceeded for resource"


class GceDeleter:
    """Deletes in one project."""

    def __init__(self, client: GceClient) -> None:
        self._client = client

    def delete(self, refs: Sequence[Ref]) -> dict[Ref, Outcome]:
        """Delete these, VMs first, and return each one's outcome."""
        vms = [ref for ref in refs if ref.kind is Kind.INSTANCE]
        others = [ref for ref in refs if ref.kind is not Kind.INSTANCE]
        outcomes: dict[Ref, Outcome] = {}
        for part in (vms, others):
            if part:
                with ThreadPoolExecutor(min(AT_ONCE, len(part))) as pool:
                    results = pool.map(self._one, part)
                    outcomes |= dict(zip(part, results, strict=True))
        return outcomes

    def _one(self, ref: Ref) -> Outcome:
        try:
            if ref.kind is Kind.INSTANCE:
                self._instance(ref)
            elif ref.kind is Kind.DISK:
                self._client(DELETE_DISK, zone=ref.scope.place, disk=ref.id)
            elif ref.kind is Kind.SNAPSHOT:
                self._client(DELETE_SNAPSHOT, snapshot=ref.id.rpartition("/")[2])
            elif ref.kind is Kind.ADDRESS:
                self._address(ref.id)
            elif ref.kind is Kind.IMAGE:
                # One that was finished since a sweep showed it lasts.
                name = ref.id.rpartition("/")[2]
                if not is_left(self._client(IMAGE, image=name)):
                    return Outcome(fate=Fate.MISSING)
                self._client(DELETE_IMAGE, image=name)
            else:
                error = f"a {ref.kind.value} cannot be deleted here"
                return Outcome(fate=Fate.FAILED, error=error)
        except CallFailed as failed:
            if failed.code in error_codes.MISSING:
                return Outcome(fate=Fate.MISSING)
            throttled = failed.code in error_codes.THROTTLED
            if (throttled or failed.code == _NOT_READY) and self._dying(ref):
                return Outcome(fate=Fate.ACCEPTED)
            if throttled and _OF_ONE not in str(failed):
                self._client.slow_down(DELETE)
            return Outcome(fate=Fate.FAILED, error=str(failed))
        return Outcome(fate=Fate.ACCEPTED)

    def _dying(self, ref: Ref) -> bool:
        """True if it is refused because another delete is under way."""
        if ref.kind is not Kind.INSTANCE:
            return False
        try:
            found = self._client(GET, zone=ref.scope.place, instance=ref.id)
        except CallFailed as failed:
            return failed.code in error_codes.MISSING
        return power(found) is Power.STOPPING

    def _instance(self, ref: Ref) -> None:
        """Delete a VM. Its guest gets no time to shut down, which may last minutes that bill."""
        where: dict[str, Any] = {"zone": ref.scope.place}
        quick = {**where, "instance": ref.id, "no_graceful_shutdown": True}
        try:
            self._client(DELETE, **quick)
        except CallFailed as failed:
            if _PROTECTED not in str(failed):
                raise
            # No protection may keep a machine of ours alive that is to die.
            self._client(UNPROTECT, resource=ref.id, deletion_protection=False, **where)
            self._client(DELETE, **quick)

    def _address(self, path: str) -> None:
        *where, _, name = path.split("/")
        if where[0] == "regions":
            self._client(DELETE_ADDRESS, region=where[1], address=name)
        else:
            self._client(DELETE_GLOBAL_ADDRESS, address=name)
