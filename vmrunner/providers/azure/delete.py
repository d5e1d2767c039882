"""Deleting: one call a thing, or one for many schedules; several at once, and none holds another
back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from vmrunner.model import Fate, Kind, Outcome, Ref
from vmrunner.providers.azure import deadline_schedules, error_codes, galleries
from vmrunner.providers.azure.client import (
    DELETE,
    DELETE_ADDRESS,
    DELETE_DISK,
    DELETE_IMAGE,
    DELETE_INTERFACE,
    DELETE_SNAPSHOT,
    DELETE_VERSION,
    IMAGE,
    VERSION,
    AzureApi,
    AzureClient,
)
from vmrunner.providers.azure.resources import tags
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.port_images import is_unfinished

#: As many as an engine deletes in one turn, and more: a call takes its time, and no work here.
AT_ONCE: Final = 64
_NO_CONTENT: Final = 204

#: Kind → its call, and the word for its name. What holds another comes before it.
_CALLS: Final[Mapping[Kind, tuple[AzureApi, str]]] = {
    Kind.INSTANCE: (DELETE, "vm_name"),
    Kind.DISK: (DELETE_DISK, "disk_name"),
    Kind.INTERFACE: (DELETE_INTERFACE, "network_interface_name"),
    Kind.ADDRESS: (DELETE_ADDRESS, "public_ip_address_name"),
    Kind.SNAPSHOT: (DELETE_SNAPSHOT, "snapshot_name"),
    Kind.IMAGE: (DELETE_IMAGE, "image_name"),
}


class AzureDeleter:
    """Deletes in one subscription. `accepted` is told of each VM whose delete is under way,
    `refused` of each refusal."""

    def __init__(
        self,
        client: AzureClient,
        accepted: Callable[[Ref], None],
        refused: Callable[[CallFailed], None],
    ) -> None:
        self._client = client
        self._accepted = accepted
        self._refused = refused

    def delete(self, refs: Sequence[Ref]) -> dict[Ref, Outcome]:
        """Delete these, VMs first, then interfaces before addresses, and return each one's
        outcome."""
        outcomes: dict[Ref, Outcome] = {}
        for kind in dict.fromkeys((*_CALLS, *(ref.kind for ref in refs))):
            part = [ref for ref in refs if ref.kind is kind]
            if kind is Kind.SCHEDULE:
                for batch in deadline_schedules.batches(part):
                    outcomes |= dict.fromkeys(batch, self._disarmed(batch))
            elif part:
                with ThreadPoolExecutor(min(AT_ONCE, len(part))) as pool:
                    outcomes |= dict(zip(part, pool.map(self._one, part), strict=True))
        return outcomes

    def _one(self, ref: Ref) -> Outcome:
        try:
            if ref.kind not in _CALLS:
                error = f"a {ref.kind.value} cannot be deleted here"
                return Outcome(fate=Fate.FAILED, error=error)
            api, parameter = _CALLS[ref.kind]
            # Its guest gets no time to shut down, which bills.
            what: dict[str, Any] = {parameter: ref.id}
            if ref.kind is Kind.INSTANCE:
                what["force_deletion"] = True
            version = galleries.parsed(ref.id) if ref.kind is Kind.IMAGE else None
            if version is not None:
                api, what = DELETE_VERSION, version.image.named
            if ref.kind is Kind.IMAGE and not self._unfinished(ref):
                return Outcome(fate=Fate.MISSING)
            begun = self._client.begin(api, group=ref.scope.place, **what)
        except CallFailed as failed:
            return self._failed(failed)
        if begun.status == _NO_CONTENT:
            return Outcome(fate=Fate.MISSING)
        if ref.kind is Kind.INSTANCE:
            self._accepted(ref)
        return Outcome(fate=Fate.ACCEPTED)

    def _disarmed(self, batch: Sequence[Ref]) -> Outcome:
        try:
            deadline_schedules.disarm(self._client, batch)
        except CallFailed as failed:
            return self._failed(failed)
        return Outcome(fate=Fate.ACCEPTED)

    def _failed(self, failed: CallFailed) -> Outcome:
        if failed.code in error_codes.MISSING:
            return Outcome(fate=Fate.MISSING)
        self._refused(failed)
        return Outcome(fate=Fate.FAILED, error=str(failed))

    def _unfinished(self, ref: Ref) -> bool:
        """True if this image is one still, that a sweep showed a while ago: one that was finished
        since lasts."""
        group, version = ref.scope.place, galleries.parsed(ref.id)
        if version is not None:
            image = self._client(VERSION, group=group, **version.image.named)
        else:
            image = self._client(IMAGE, group=group, image_name=ref.id)
        return is_unfinished(tags(image))
