"""Deleting: instances in batches that one bad item cannot stop, everything else by itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from vmrunner.errors import BadOrder, CredentialsRefused, Throttled, Uncertain
from vmrunner.model import Fate, Kind, Outcome, Ref
from vmrunner.providers.common.batches import in_batches
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2 import deadline_schedules
from vmrunner.providers.ec2.client import (
    ADDRESSES,
    CANCEL_SPOT,
    DELETE_INTERFACE,
    DELETE_KEY,
    DELETE_SECURITY_GROUP,
    DELETE_SNAPSHOT,
    DELETE_VOLUME,
    DEREGISTER,
    DISASSOCIATE_ADDRESS,
    IMAGES,
    RELEASE_ADDRESS,
    SNAPSHOTS,
    TERMINATE,
    UNPROTECT,
    Answer,
    Ec2Api,
    Ec2Client,
)
from vmrunner.providers.ec2.describe_instances import INSTANCE_ID, filtered
from vmrunner.providers.ec2.error_codes import DENIED
from vmrunner.providers.ec2.resources import snapshots, tags
from vmrunner.providers.port_images import OWNER, is_unfinished

AT_ONCE: Final = 8  # calls that remove a schedule
DELETE_BATCH: Final = 100  # ids; EC2 takes 1,000 and recommends fewer

#: A machine that shuts down for so long gets no more grace, in seconds.
DELETE_TIMEOUT: Final = 600.0

PROTECTED: Final = "OperationNotPermitted"
#: What protects from termination, each by itself; the likelier first.
PROTECTIONS: Final = ("DisableApiTermination", "DisableApiStop")
_MISSING: Final = re.compile(
    r"Invalid\w+(ID)?\.NotFound|InvalidAMIID\.Unavailable|ResourceNotFoundException"
)
_SINCE: Final = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


class Ec2Deleter:
    """Deletes in one region."""

    def __init__(self, client: Ec2Client, region: str, now: Callable[[], float]) -> None:
        self._client = client
        self._region = region
        self._now = now

    def delete(self, refs: Sequence[Ref], *, force: bool) -> dict[Ref, Outcome]:
        """Delete these, instances first, and return each one's outcome."""
        named = {ref.id: ref for ref in refs if ref.kind is Kind.INSTANCE}
        outcomes = {named[i]: outcome for i, outcome in self._instances(list(named), force).items()}
        schedules = [ref for ref in refs if ref.kind is Kind.SCHEDULE]
        if schedules:  # each VM has one, and no call takes several
            with ThreadPoolExecutor(min(AT_ONCE, len(schedules))) as pool:
                outcomes |= dict(zip(schedules, pool.map(self._other, schedules), strict=True))
        for ref in refs:
            if ref not in outcomes:
                outcomes[ref] = self._other(ref)
        return outcomes

    # --- instances ---

    def _instances(self, ids: list[str], force: bool) -> dict[str, Outcome]:
        hard = self._overdue(ids) if force else set()
        soft = [name for name in ids if name not in hard]
        # No guest answers a power button, and nothing of it is wanted any more.
        how: Answer = {"SkipOsShutdown": True}
        outcomes = self._terminate(soft, how)
        return outcomes | self._terminate(sorted(hard), {**how, "Force": True})

    def _terminate(self, ids: Sequence[str], how: Answer) -> dict[str, Outcome]:
        def call(batch: Sequence[str]) -> None:
            self._client(self._region, TERMINATE, items=len(batch), InstanceIds=list(batch), **how)

        def alone(name: str, failed: CallFailed) -> Outcome:
            # No protection may keep a machine of ours alive that is to die.
            for protection in PROTECTIONS:
                if failed.code != PROTECTED:
                    break
                off: Answer = {protection: {"Value": False}}
                try:
                    self._client(self._region, UNPROTECT, InstanceId=name, **off)
                    call([name])
                except CallFailed as again:
                    failed = again
                else:
                    return Outcome(fate=Fate.ACCEPTED)
            return _outcome(failed)

        return in_batches(
            ids,
            DELETE_BATCH,
            call,
            poisoned=_of_one,
            names=lambda f, name: name in str(f),
            alone=alone,
        )

    def _overdue(self, ids: Sequence[str]) -> set[str]:
        """Ids of instances that have been shutting down for too long. Where that cannot be told,
        none are: they are asked softly."""
        overdue: set[str] = set()
        with contextlib.suppress(CallFailed):
            for item in filtered(self._client, self._region, INSTANCE_ID, ids):
                if item["State"]["Name"] == "shutting-down" and self._late(item):
                    overdue.add(item["InstanceId"])
        return overdue

    def _late(self, item: Mapping[str, Any]) -> bool:
        found = _SINCE.search(item.get("StateTransitionReason", ""))
        if found is None:
            return True  # force was asked for, and nothing speaks against it
        since = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
        return self._now() - since >= DELETE_TIMEOUT

    # --- everything else ---

    def _other(self, ref: Ref) -> Outcome:
        call = _BY_KIND.get(ref.kind)
        if call is None:
            return Outcome(fate=Fate.FAILED, error=f"a {ref.kind.value} cannot be deleted here")
        try:
            call(self._client, self._region, ref.id)
        except CallFailed as failed:
            return _outcome(failed)
        return Outcome(fate=Fate.ACCEPTED)


def _of_one(failed: CallFailed) -> bool:
    """True if one bad item may be to blame: for refusals, but not for EC2's own trouble, its
    limits, or credentials that it does not know."""
    general = (Throttled, Uncertain, CredentialsRefused)
    return failed.code in DENIED or not isinstance(failed.error, general)


def _outcome(failed: CallFailed) -> Outcome:
    """Outcome of one delete. Missing is success, and no proof of death: a new VM may not be visible
    yet."""
    if _MISSING.fullmatch(failed.code):
        return Outcome(fate=Fate.MISSING)
    return Outcome(fate=Fate.FAILED, error=str(failed))


def _simply(call: Ec2Api[Any], field: str) -> Callable[[Ec2Client, str, str], None]:
    def delete(client: Ec2Client, region: str, name: str) -> None:
        params: Answer = {field: name}
        client(region, call, **params)

    return delete


def _cancel_spot(client: Ec2Client, region: str, name: str) -> None:
    client(region, CANCEL_SPOT, SpotInstanceRequestIds=[name])


def _release(client: Ec2Client, region: str, name: str) -> None:
    """An address that is in use is taken away first."""
    found: list[Any] = client(
        region, ADDRESSES, Filters=[{"Name": "allocation-id", "Values": [name]}]
    )["Addresses"]
    for address in found:
        if address.get("AssociationId"):
            client(region, DISASSOCIATE_ADDRESS, AssociationId=address["AssociationId"])
    client(region, RELEASE_ADDRESS, AllocationId=name)


def _deregister(client: Ec2Client, region: str, name: str) -> None:
    """Delete an image, and its snapshots. One that was finished since a sweep showed it lasts, and
    counts as missing. Sweeps show the snapshots that stay."""
    found = client(region, IMAGES, ImageIds=[name])["Images"]
    unfinished = [image for image in found if is_unfinished(tags(image))]
    if not unfinished:
        raise CallFailed("InvalidAMIID.NotFound", BadOrder(f"{name} is no leftover"))
    client(region, DEREGISTER, ImageId=name)
    if not (names := snapshots(unfinished[0])):
        return
    query: Answer = {"OwnerIds": ["self"], "Filters": [{"Name": "snapshot-id", "Values": names}]}
    for snapshot in client(region, SNAPSHOTS, **query)["Snapshots"]:
        if _is_of(snapshot, unfinished[0]):
            client(region, DELETE_SNAPSHOT, SnapshotId=snapshot["SnapshotId"])


def _is_of(snapshot: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """True if a snapshot was made for this image: it has our tag as well; or none yet, and EC2 made
    it for that one. Any image may be put together of other owners' snapshots."""
    whose = tags(snapshot).get(OWNER)
    if whose is None:
        return image["ImageId"] in snapshot.get("Description", "")
    return whose == tags(image).get(OWNER)


_BY_KIND: Final = {
    Kind.DISK: _simply(DELETE_VOLUME, "VolumeId"),
    Kind.INTERFACE: _simply(DELETE_INTERFACE, "NetworkInterfaceId"),
    Kind.SNAPSHOT: _simply(DELETE_SNAPSHOT, "SnapshotId"),
    Kind.IMAGE: _deregister,
    Kind.KEY: _simply(DELETE_KEY, "KeyName"),
    Kind.GROUP: _simply(DELETE_SECURITY_GROUP, "GroupId"),
    Kind.ADDRESS: _release,
    Kind.SPOT_REQUEST: _cancel_spot,
    Kind.SCHEDULE: deadline_schedules.disarm,
}
