"""The guard: the part of the reaper that lives in the AWS account and needs nothing of vmrunner's.

A Lambda function, invoked every five minutes. It keeps no state and asks no ledger: what is past
the deadline in its own tags, plus a grace, is ended; instances first, then what else of ours bills.
What has no tag of ours is never even listed. One kind or region that fails holds no other back; the
failures are raised at the end, so that the invocation counts as failed and its alarm rings.

A pass that saw the VMs of the function's own region, and that EC2 let end those that were due,
leaves its time as a tag of the function, `vmrunner:last-pass`: without that sign vmrunner takes the
guard for dead.

The deadline is `vmrunner:expires-at`; where that is unreadable, creation + `vmrunner:max-ttl`, or +
VMRUNNER_MAX_TTL where there is no such tag. What nothing tells is reported and lives.

    VMRUNNER_INSTALLATION  whose; `*`: any
    VMRUNNER_REGIONS       where, with commas; empty: all regions that the account has enabled
    VMRUNNER_GRACE         seconds past the deadline, default 480: vmrunner itself comes first
    VMRUNNER_MAX_TTL       seconds, the longest life of any VM; empty: only the tags tell

One file, the standard library and boto3. An event `{"dry_run": true}` only tells what would end.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:  # the function itself has none of these
    from types_boto3_ec2 import EC2Client
    from types_boto3_scheduler import EventBridgeSchedulerClient
    from types_boto3_scheduler.type_defs import GetScheduleOutputTypeDef

TAG: Final = "vmrunner:"
#: Of every installation of vmrunner, these alone end by their tags.
ROLES: Final = ("build", "pool", "image")
GRACE: Final = 480.0
#: Schedules carry no tags: their group is named by the installation, they by their VM.
GROUP, SCHEDULE = "vmrunner-", "vm-"
ANY: Final = "*"

PAGE: Final = 1000
BATCH: Final = 100  # instances in one call

#: What protects from termination, each by itself.
PROTECTIONS: Final = ("DisableApiTermination", "DisableApiStop")
#: EC2's own trouble: some zones may be well.
DOWN: Final = r"Internal\w*|\w*Unavailable"
#: No item is to blame: that, a limit, or credentials that are not accepted; "": no answer.
GENERAL: Final = re.compile(
    rf"|{DOWN}|RequestTimeout|\w*Throttl\w*|\w*LimitExceeded|TooMany\w*|SlowDown|AuthFailure"
    r"|Blocked|OptInRequired|PendingVerification|\w*(Expired|Token|Signature|Client)\w*"
)
#: Missing is success.
MISSING: Final = re.compile(r"Invalid\w+\.NotFound|ResourceNotFoundException")
#: It is in use: a snapshot by its image, a disk by a VM that is still going.
IN_USE: Final = re.compile(r"Invalid\w+\.InUse|VolumeInUse|IncorrectState|DependencyViolation")
#: A right is missing.
DENIED: Final = re.compile(r"UnauthorizedOperation|AccessDenied(Exception)?")
REPORT_KEYS: Final = ("ended", "held", "unreadable", "failures")
Item = Mapping[str, Any]  # as EC2 tells it; `Kind` and `_judged` alone read it
Seconds = float | None


class GuardFailed(Exception):
    """Something could not be read or ended. All else was."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Raises `ValueError` with the variable and its value."""

    installation: str
    regions: tuple[str, ...] = ()
    grace: float = GRACE
    max_ttl: float | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        installation = environment.get("VMRUNNER_INSTALLATION", "").strip()
        if not installation:
            raise ValueError("VMRUNNER_INSTALLATION: none; set a ledger's installation, or *")
        regions = environment.get("VMRUNNER_REGIONS", "").replace(",", " ").split()
        return cls(
            installation=installation,
            regions=tuple(dict.fromkeys(regions)),
            grace=_seconds(environment, "VMRUNNER_GRACE", GRACE) or 0.0,
            max_ttl=_seconds(environment, "VMRUNNER_MAX_TTL"),
        )


def _seconds(environment: Mapping[str, str], name: str, otherwise: Seconds = None) -> Seconds:
    text = environment.get(name, "").strip()
    if text and not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"{name}: {text!r}; whole seconds, such as 480")
    return float(text) if text else otherwise


def ours(tags: Mapping[str, str], installation: str) -> bool:
    """True if it is of this installation, by tag and role."""
    whose = tags.get(f"{TAG}installation", "")
    owned = bool(whose) and installation in (whose, ANY)
    return owned and tags.get(f"{TAG}role") in ROLES


def seconds_in(tags: Mapping[str, str], name: str) -> Seconds:
    """Seconds in a tag; None: unreadable, or absent."""
    text = tags.get(TAG + name, "")
    return float(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


@dataclass(frozen=True)
class Case:
    """The settings and time of one pass."""

    settings: Settings
    now: float
    dry_run: bool

    def past(self, until: float) -> bool:
        return self.now > until + self.settings.grace

    def deadline(self, expires_at: Seconds, created: Seconds, most: Seconds = None) -> Seconds:
        """Epoch seconds by which it must be deleted, as promised at its creation; None: unknown."""
        most = self.settings.max_ttl if most is None else most
        if expires_at is not None or created is None or most is None:
            return expires_at
        return created + most


class Thing(NamedTuple):
    """Something of ours, so many seconds past its deadline."""

    id: str
    instance: str  # its name at vmrunner
    overdue: float
    association: str  # of an address that is in use


class Kind(NamedTuple):
    """A kind of resource. `states`: those to end; what hangs on a VM is free after it."""

    name: str
    method: Any  # its name, one of EC2Client's
    key: str
    id: str
    created_key: str = ""  # of an item's creation time
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    state: str = ""
    states: tuple[str, ...] = ()
    tags: str = "Tags"

    def items(self, page: Item) -> Iterator[Item]:
        for item in page[self.key]:
            yield from item["Instances"] if self.key == "Reservations" else (item,)

    def created(self, item: Item) -> Seconds:
        """LaunchTime begins anew with each start, the first interface's attachment does not."""
        nics = (nic.get("Attachment", {}) for nic in item.get("NetworkInterfaces", ()))
        first = (nic.get("AttachTime") for nic in nics if nic.get("DeviceIndex") == 0)
        times = (item.get(self.created_key), *first)
        return min((t.timestamp() for t in times if isinstance(t, datetime)), default=None)


INSTANCES: Final = Kind(
    "instance", "describe_instances", "Reservations", "InstanceId", "LaunchTime",
    filters=(("instance-state-name", ("pending", "running", "stopping", "stopped")),),
)  # fmt: skip
SPOT_REQUESTS: Final = Kind(
    "spot_request", "describe_spot_instance_requests", "SpotInstanceRequests",
    "SpotInstanceRequestId", "CreateTime", filters=(("state", ("open", "active")),),
)  # fmt: skip
VOLUMES: Final = Kind(
    "disk", "describe_volumes", "Volumes", "VolumeId", "CreateTime",
    state="State", states=("available", "error"),
)  # fmt: skip
INTERFACES: Final = Kind(
    "interface", "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId",
    state="Status", states=("available",), tags="TagSet",
)  # fmt: skip
ADDRESSES: Final = Kind("address", "describe_addresses", "Addresses", "AllocationId")
SNAPSHOTS: Final = Kind("snapshot", "describe_snapshots", "Snapshots", "SnapshotId", "StartTime")


class Region:
    """One pass over one region. `lines`: of the report, by key: ended, in use, with unreadable
    tags, and failed."""

    def __init__(self, make: Callable[..., Any], name: str, case: Case) -> None:
        self.name, self.case = name, case
        self.saw = False  # its VMs, as far as zones answer
        self.denied = False  # the right to end one of them
        self.lines: dict[str, list[dict[str, str | int]]] = {key: [] for key in REPORT_KEYS}
        self.ec2: EC2Client = make("ec2", region_name=name)
        self.scheduler: EventBridgeSchedulerClient = make("scheduler", region_name=name)

    def pass_over(self) -> None:
        """The dear first. Whatever goes wrong with one kind, the others have their turn."""
        ec2 = self.ec2
        things = self._expired(INSTANCES)
        for start in range(0, len(things), BATCH):
            self._terminate(things[start : start + BATCH])
        cancel = ec2.cancel_spot_instance_requests
        self._each(SPOT_REQUESTS, lambda t: cancel(SpotInstanceRequestIds=[t.id]))
        self._each(VOLUMES, lambda t: ec2.delete_volume(VolumeId=t.id))
        self._each(INTERFACES, lambda t: ec2.delete_network_interface(NetworkInterfaceId=t.id))
        self._each(ADDRESSES, lambda t: _release(ec2, t))
        self._each(SNAPSHOTS, lambda t: ec2.delete_snapshot(SnapshotId=t.id))
        try:
            self._schedules()
        except Exception as error:  # noqa: BLE001 - reported, and nothing else is held back
            self._tell("failures", "schedule", error=_words(error))

    def _expired(self, kind: Kind) -> list[Thing]:
        """As far as it can be read: what is on one page is there, whatever becomes of the next."""
        found: dict[str, Thing] = {}
        for pages in (self._pages, self._apart) if kind is INSTANCES else (self._pages,):
            try:
                for page in pages(kind):
                    things = [self._judged(kind, item) for item in kind.items(page)]
                    found |= {thing.id: thing for thing in things if thing is not None}
                self.saw |= kind is INSTANCES
                break
            except Exception as error:  # noqa: BLE001 - reported, and what was found is ended
                self._tell("failures", kind.name, error=_words(error))
                if not re.fullmatch(DOWN, _code(error)):
                    break
        return list(found.values())

    def _apart(self, kind: Kind) -> Iterator[Item]:
        """While a zone is disrupted, EC2 shows instances by ids that are all in other zones, and
        nothing else. Their interfaces tell both."""
        zones: dict[str, list[str]] = {}
        for page in self._pages(INTERFACES):
            for nic in page["NetworkInterfaces"]:
                if instance := nic.get("Attachment", {}).get("InstanceId"):
                    zones.setdefault(nic["AvailabilityZone"], []).append(instance)
        for zone, ids in zones.items():
            try:
                yield self.ec2.describe_instances(InstanceIds=ids)
            except ClientError as error:
                self._tell("failures", kind.name, zone=zone, error=_words(error))

    def _pages(self, kind: Kind) -> Iterator[Item]:
        # What is not ours is not even listed; `*` in a filter is any value.
        filters = [(f"tag:{TAG}installation", (self.case.settings.installation,)), *kind.filters]
        params: dict[str, Any] = {"Filters": [{"Name": k, "Values": list(v)} for k, v in filters]}
        if kind is SNAPSHOTS:
            params["OwnerIds"] = ["self"]  # and not the world's
        if self.ec2.can_paginate(kind.method):
            paginator = self.ec2.get_paginator(kind.method)
            yield from paginator.paginate(**params, PaginationConfig={"PageSize": PAGE})
        else:
            yield getattr(self.ec2, kind.method)(**params)

    def _judged(self, kind: Kind, item: Item) -> Thing | None:
        """The item as a `Thing`, if it must end. A malformed one hides no other."""
        name = str(item.get(kind.id, "?"))
        try:
            tags = {str(t["Key"]): str(t.get("Value", "")) for t in item.get(kind.tags, ())}
            free = not kind.state or item[kind.state] in kind.states
            if not free or not ours(tags, self.case.settings.installation):
                return None
            expires_at = seconds_in(tags, "expires-at")
            until = self.case.deadline(expires_at, kind.created(item), seconds_in(tags, "max-ttl"))
            instance = tags.get(f"{TAG}instance", "")
            if expires_at is None:
                self._tell("unreadable", kind.name, id=name, instance=instance)
            if until is None or not self.case.past(until):
                return None
            overdue = self.case.now - until
            return Thing(item[kind.id], instance, overdue, item.get("AssociationId", ""))
        except Exception as error:  # noqa: BLE001 - see above
            self._tell("failures", kind.name, id=name, error=_words(error))
            return None

    def _each(self, kind: Kind, end: Callable[[Thing], object]) -> None:
        for thing in self._expired(kind):
            try:
                if not self.case.dry_run:
                    end(thing)
                self._ended(kind, thing)
            except Exception as error:  # noqa: BLE001 - the others are not held back
                self._failed(kind, thing, error)

    def _terminate(self, things: list[Thing]) -> None:
        """EC2 refuses a whole batch for one bad item: halve it until that one is alone."""
        try:
            if not self.case.dry_run:
                self._kill([thing.id for thing in things])
            for thing in things:
                self._ended(INSTANCES, thing)
        except Exception as error:  # noqa: BLE001 - the others are not held back
            half = len(things) // 2
            if half and not GENERAL.fullmatch(_code(error)):
                self._terminate(things[:half])
                self._terminate(things[half:])
            else:
                for thing in things:
                    self._failed(INSTANCES, thing, error)

    def _kill(self, names: list[str], protections: tuple[str, ...] = PROTECTIONS) -> None:
        try:
            self.ec2.terminate_instances(InstanceIds=names)
        except ClientError as error:
            if len(names) > 1 or _code(error) != "OperationNotPermitted" or not protections:
                raise
            # A protection may not keep a machine of ours past its deadline.
            off: Any = {protections[0]: {"Value": False}}
            self.ec2.modify_instance_attribute(InstanceId=names[0], **off)
            self._kill(names, protections[1:])

    def _schedules(self) -> None:
        """One-shot deadlines that are past and did not remove themselves. Beside them there is
        only the guard's own, which is not named as a VM is."""
        whose = self.case.settings.installation
        prefix = GROUP if whose == ANY else GROUP + whose
        list_groups = self.scheduler.get_paginator("list_schedule_groups")
        list_schedules = self.scheduler.get_paginator("list_schedules")
        for groups in list_groups.paginate(NamePrefix=prefix):
            names = [g["Name"] for g in groups["ScheduleGroups"]]
            for name in names if whose == ANY else {prefix}.intersection(names):
                for page in list_schedules.paginate(GroupName=name, NamePrefix=SCHEDULE):
                    for schedule in page["Schedules"]:
                        self._schedule(name, schedule["Name"])

    def _schedule(self, group: str, name: str) -> None:
        try:
            until = _at(self.scheduler.get_schedule(GroupName=group, Name=name))
            if until is None:
                self._tell("unreadable", "schedule", id=name, instance=name)
            elif self.case.past(until):
                if not self.case.dry_run:
                    self.scheduler.delete_schedule(GroupName=group, Name=name)
                self._tell("ended", "schedule", id=name, late=round(self.case.now - until))
        except Exception as error:  # noqa: BLE001 - the others are not held back
            if not MISSING.fullmatch(_code(error)):
                self._tell("failures", "schedule", id=name, error=_words(error))

    def _tell(self, what: str, kind: str, **more: str | int) -> None:
        self.lines[what].append({"region": self.name, "kind": kind, **more})

    def _ended(self, kind: Kind, thing: Thing) -> None:
        self._tell(
            "ended", kind.name, id=thing.id, instance=thing.instance, late=round(thing.overdue)
        )

    def _failed(self, kind: Kind, thing: Thing, error: Exception) -> None:
        if MISSING.fullmatch(_code(error)):
            return
        self.denied |= kind is INSTANCES and DENIED.fullmatch(_code(error)) is not None
        used = kind is not INSTANCES and IN_USE.fullmatch(_code(error))
        self._tell("held" if used else "failures", kind.name, id=thing.id, error=_words(error))


def _release(ec2: EC2Client, address: Thing) -> None:
    """An address that is in use is taken away first."""
    if address.association:
        ec2.disassociate_address(AssociationId=address.association)
    ec2.release_address(AllocationId=address.id)


def _at(schedule: GetScheduleOutputTypeDef) -> Seconds:
    """Epoch seconds at which a one-shot schedule fires; None: it is none, or not in UTC."""
    found = re.fullmatch(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)", schedule["ScheduleExpression"])
    if found is None or schedule.get("ScheduleExpressionTimezone", "UTC") != "UTC":
        return None
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp()


def _code(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _words(error: Exception) -> str:
    """One line, without the encoded page that a denial carries."""
    text = " ".join(str(error).split()).partition(" Encoded authorization failure message")[0]
    return f"{type(error).__name__}: {text}"[:300]


def guard(settings: Settings, now: float, *, dry_run: bool = False) -> dict[str, Any]:
    """One pass over all regions; its report."""
    retries: Any = {"mode": "standard", "total_max_attempts": 4}
    config = Config(connect_timeout=5, read_timeout=20, retries=retries)
    client = functools.partial(boto3.Session().client, config=config)
    regions = [] if settings.regions else client("ec2").describe_regions()["Regions"]
    names = settings.regions or tuple(sorted(region["RegionName"] for region in regions))
    case = Case(settings, now, dry_run)
    passes = [Region(client, name, case) for name in names]  # making a client is for one thread
    with ThreadPoolExecutor(8) as pool:  # regions at once
        list(pool.map(Region.pass_over, passes))
    lines = {key: [line for each in passes for line in each.lines[key]] for key in REPORT_KEYS}
    seen = [each.name for each in passes if each.saw and not each.denied]
    report = {"installation": settings.installation, "regions": names, "seen": seen}
    return {**report, "dry_run": dry_run, **lines}


def leave_sign(function: str, seen: Container[str], now: float) -> None:
    """Leave the time of a pass as a tag of the function, by its ARN."""
    arn = function.split(":")[:7]  # without a version
    if arn[3] in seen:
        client = boto3.client("lambda", region_name=arn[3])
        client.tag_resource(Resource=":".join(arn), Tags={f"{TAG}last-pass": str(int(now))})


def handler(event: Any, context: Any = None) -> dict[str, Any]:
    """Lambda's entry point. Raises `GuardFailed` after all was done that could be."""
    dry_run = isinstance(event, Mapping) and event.get("dry_run") is True
    now = time.time()
    report = guard(Settings.read(os.environ), now, dry_run=dry_run)
    print(json.dumps(report))  # noqa: T201 - to the function's log
    if context is not None and not dry_run:
        leave_sign(context.invoked_function_arn, report["seen"], now)
    if failures := report["failures"]:
        raise GuardFailed(f"{len(failures)} failures: {json.dumps(failures[:3])}")
    return report
