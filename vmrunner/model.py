"""The nouns. Frozen values, no I/O; every time is epoch seconds as a float, every size is bytes.

An instance id names one VM for ever: it is the VM's name in the cloud, its idempotency token
and its row. A `Ref` is what a provider calls a resource; a `Key` is what we look it up by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

TAG: Final = "vmrunner:"


class BuildState(StrEnum):
    """Where a build is; the order of members is the order of life."""

    QUEUED = "queued"
    PROVISIONING = "provisioning"
    BOOTING = "booting"
    CONNECTING = "connecting"
    PREPARING = "preparing"
    RUNNING = "running"
    COLLECTING = "collecting"
    HELD = "held"
    FINISHED = "finished"


class Result(StrEnum):
    """How a build ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a build ended so. Stable words: scripts branch on them."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    STEP_TIMEOUT = "step_timeout"
    BUILD_TIMEOUT = "build_timeout"
    DEADLINE = "deadline"
    USER = "user"
    OWNER_GONE = "owner_gone"
    QUEUE_TIMEOUT = "queue_timeout"
    NO_CAPACITY = "no_capacity"
    QUOTA = "quota"
    CREDENTIALS = "credentials"
    IMAGE = "image"
    BOOT_FAILED = "boot_failed"
    VM_LOST = "vm_lost"
    PREEMPTED = "preempted"
    CONNECTION_LOST = "connection_lost"
    BUDGET = "budget"
    INTERNAL = "internal"


class InstanceState(StrEnum):
    """Where an instance is. One way only; there is no "failed": the death reason says why."""

    REQUESTED = "requested"  # the row is written; the provider has not answered
    BOOTING = "booting"  # accepted; we hold its reference
    READY = "ready"  # SSH answered with the host key that we planted
    BUSY = "busy"  # the build's steps run
    HELD = "held"  # kept for debugging
    DELETING = "deleting"  # it must die, and it is not yet seen dead
    GONE = "gone"  # seen dead


class Death(StrEnum):
    """Why an instance or resource must die, in the reaper's order of priority."""

    EXPIRED = "expired"
    LEFTOVER = "leftover"
    DUPLICATE = "duplicate"
    CANCELLED = "cancelled"
    STUCK = "stuck"
    ABANDONED = "abandoned"
    ORPHAN = "orphan"
    VANISHED = "vanished"
    DONE = "done"  # its build ended: the owner deletes it
    REFUSED = "refused"  # the provider never made it


class Kind(StrEnum):
    """A billable thing in a cloud."""

    INSTANCE = "instance"
    DISK = "disk"
    ADDRESS = "address"
    INTERFACE = "interface"
    SNAPSHOT = "snapshot"
    KEY = "key"
    SPOT_REQUEST = "spot_request"
    SCHEDULE = "schedule"


class Role(StrEnum):
    """What a resource of ours is for."""

    BUILD = "build"
    IMAGE = "image"
    GUARD = "guard"
    POOL = "pool"


class Market(StrEnum):
    """How a machine is paid for."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"


class Network(StrEnum):
    """What a build may reach."""

    OPEN = "open"  # the internet; never the host, private ranges, link-local or another VM
    NONE = "none"


class Power(StrEnum):
    """What a provider shows of a resource's life, in our words."""

    PENDING = "pending"  # being made
    RUNNING = "running"  # on; for a disk or an address: there
    STOPPING = "stopping"  # a delete or a stop is under way; it may still bill
    STOPPED = "stopped"  # off, but it exists and its disks bill
    DEAD = "dead"  # seen terminated: nothing bills


# --- where -------------------------------------------------------------------------------------


class Scope(NamedTuple):
    """Where a provider really acts, verified by its driver.

    EC2: (ec2, account, region); GCE: (gce, project, zone); QEMU: (qemu, machine id, state dir).
    """

    kind: str
    account: str
    place: str

    def __str__(self) -> str:
        return "|".join(self)

    @classmethod
    def parse(cls, text: str) -> Scope:
        kind, account, place = text.split("|", 2)
        return cls(kind, account, place)


class Ref(NamedTuple):
    """What a provider calls a resource."""

    scope: Scope
    kind: Kind
    id: str


class Key(NamedTuple):
    """What to look for: our instance id, with the provider's own id once it is known."""

    scope: Scope
    instance: str
    ref: str | None = None


class Address(NamedTuple):
    """Where SSH answers."""

    host: str
    port: int = 22


# --- what a provider is asked for, and what it shows --------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a build needs from a machine. None: the provider's own default."""

    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    spot: bool = False
    image: str | None = None
    network: Network = Network.OPEN


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """Machine type × place × market that a provider can be asked for."""

    scope: Scope
    machine_type: str
    place: str  # subnet, zone or host
    market: Market = Market.ON_DEMAND
    cpus: int = 0
    memory: int = 0
    disk: int = 0
    image: str = ""  # resolved: an AMI id, an image link, a recipe hash
    usd_hour: float = 0.0  # estimated; 0 where the machine is the user's own


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One create call, frozen before it is sent; the identical order again is the same VM."""

    instance: str
    build: str
    installation: str
    generation: str
    role: Role
    offer: Offer
    deadline: float  # E
    user_data: bytes
    network: Network = Network.OPEN
    tags: Mapping[str, str] = field(default_factory=dict)  # the user's own, beside `tags_of`


def tags_of(order: Order) -> dict[str, str]:
    """The tags that every resource is born with (design §6), for providers that take `:`."""
    return {
        **order.tags,
        f"{TAG}installation": order.installation,
        f"{TAG}generation": order.generation,
        f"{TAG}role": order.role.value,
        f"{TAG}instance": order.instance,
        f"{TAG}build": order.build,
        f"{TAG}expires-at": str(int(order.deadline)),
        "Name": order.instance,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a provider shows of one instance when asked."""

    ref: Ref
    power: Power
    address: Address | None = None
    created_at: float | None = None
    detail: str = ""  # the provider's own words: preempted, guest shut down, …
    preempted: bool = False
    self_ended: bool = False  # the guest switched itself off


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One thing that a sweep shows. Tag values are attacker input until they match a row."""

    ref: Ref
    power: Power
    created_at: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: Ref | None = None  # what it is attached to
    near: str = ""  # what makes it look like ours, whatever its tags say: our image, our network

    def tag(self, name: str) -> str | None:
        return self.tags.get(f"{TAG}{name}")

    @property
    def alive(self) -> bool:
        return self.power is not Power.DEAD

    @property
    def instance(self) -> str | None:
        return self.tag("instance")

    @property
    def role(self) -> Role | None:
        try:
            return Role(self.tag("role") or "")
        except ValueError:
            return None

    @property
    def expires_at(self) -> float | None:
        """The deadline in its tag; None when the tag is missing or not a plain decimal number."""
        text = self.tag("expires-at") or ""
        return float(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A part of one sweep of (scope, kind). Presence always counts; absence only when the last
    page (`more` False) of that (scope, kind) came and none of its pages carries an error."""

    scope: Scope
    kind: Kind
    resources: tuple[Resource, ...] = ()
    error: str | None = None
    time: float = 0.0  # the cloud's clock
    more: bool = False


class Fate(StrEnum):
    """What became of one delete."""

    ACCEPTED = "accepted"
    MISSING = "missing"  # success for the caller, but no proof of death
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one delete, with the provider's error when it failed."""

    fate: Fate
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What a provider's guarantee rests on."""

    tag_on_create: bool = True
    native_deadline: bool = False  # ends the VM at E with nothing of ours alive
    idempotent_create: bool = True
    guard: bool = False  # can have a guard in the account
    kinds: tuple[Kind, ...] = (Kind.INSTANCE,)  # what a sweep shows


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of `doctor`."""

    check: str
    level: Level
    message: str
    fix: str = ""


# --- processes ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """Who a process is, so that "gone" can be said with certainty on the same machine."""

    machine: str  # machine id
    boot: str  # boot id
    pid_namespace: str
    pid: int
    started: int  # start time in clock ticks since boot


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """How to reach one instance, and nothing else: its own key pair, the host key we planted.

    Both are OpenSSH text. Kept sealed in the ledger, erased when the row closes."""

    user_private: str
    host_public: str


# --- what the user submits ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step. A `run` string is a shell line; an `argv` is one command. Exactly one is set."""

    run: str | None = None
    argv: tuple[str, ...] = ()
    name: str = ""
    timeout: float | None = None  # seconds
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name or (self.run if self.run is not None else " ".join(self.argv))


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRule:
    """What to bring back: a glob relative to the work directory."""

    glob: str
    always: bool = False  # also when the steps failed


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSpec:
    """All that a user submits, except the values of secrets. `ttl` and `timeout` are seconds."""

    steps: tuple[Step, ...]
    provider: str
    container: str
    timeout: float
    ttl: float
    image: str | None = None
    docker: bool = False  # the build gets its own Docker
    privileged: bool = False
    runtime: str = "runc"
    source: str | None = None  # what the user named; the bytes are in the source spool
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names only
    artifacts: tuple[ArtifactRule, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    queue_timeout: float | None = None
    keep_on_failure: float | None = None
    network: Network = Network.OPEN
    name: str = ""
    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    spot: bool = False
    retry_on_loss: bool = False
    priority: int = 0  # higher starts first
    idempotency_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a build's life; `ended` is None while it lasts."""

    state: BuildState
    started: float
    ended: float | None = None

    def seconds(self, now: float) -> float:
        return (self.ended if self.ended is not None else now) - self.started


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """A row of `builds`, as it was when it was read."""

    id: str
    spec: BuildSpec
    state: BuildState
    created_at: float
    state_since: float
    attempt: int = 0  # 0 until the first instance; then 1, 2, …
    instance: str | None = None  # the current attempt's
    result: Result | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    message: str = ""  # one line for the user, beside the reason
    finished_at: float | None = None
    submitter: Process | None = None  # set: foreground, belongs to that process
    owner: str | None = None  # engine id of the session owner
    owner_until: float = 0.0
    epoch: int = 0
    cancel: Reason | None = None  # an authorised wish: user, owner_gone, …
    cancelled_at: float | None = None
    hold_until: float | None = None
    steps_started: bool = False
    phases: tuple[Phase, ...] = ()
    cost: float = 0.0  # USD, estimated

    @property
    def finished(self) -> bool:
        return self.state is BuildState.FINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """A row of `instances`, as it was when it was read."""

    id: str
    build: str
    attempt: int
    provider: str  # the configured name
    offer: Offer
    role: Role
    state: InstanceState
    created_at: float
    state_since: float
    deadline: float  # E: never raised
    epoch: int
    owner: str | None = None
    ref: Ref | None = None
    address: Address | None = None
    death: Death | None = None
    message: str = ""
    deletes: int = 0  # accepted or failed attempts so far
    delete_at: float = 0.0  # not before this, the next attempt
    gone_at: float | None = None

    @property
    def scope(self) -> Scope:
        return self.offer.scope

    @property
    def key(self) -> Key:
        return Key(self.scope, self.id, self.ref.id if self.ref else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to a build or an instance; `data` is small and holds no secret."""

    seq: int
    time: float
    kind: str
    data: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Log bytes as stored, masked. `offset` is where the raw bytes ended in the VM's file,
    `line` how many newlines of this build's log lie before this chunk."""

    seq: int
    attempt: int
    time: float
    offset: int
    line: int
    data: bytes


class LogLine(str):
    """One line of a log, without its newline; `seq` counts lines from 1 and never repeats."""

    __slots__ = ("seq", "time")
    seq: int
    time: float

    def __new__(cls, text: str, seq: int, time: float) -> LogLine:
        line = super().__new__(cls, text)
        line.seq = seq
        line.time = time
        return line


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Numbers that bound what is started and what is let live, all in seconds or counts."""

    max_ttl: float = 4 * 3600
    max_instances: int = 20
    newborn: float = 15 * 60  # absence means nothing so soon after birth
    sighting_gap: float = 60  # between the two sightings that count
    grace: float = 60  # G
    requested: float = 15 * 60  # longest stay in each state
    booting: float = 15 * 60
    ready: float = 10 * 60
    deleting: float = 15 * 60
    orphan_cap: int = 10
