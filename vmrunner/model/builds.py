"""Builds: the user's request, its record, and its limits; rows as they were when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from vmrunner.model.allow_list import NetworkPolicy
from vmrunner.model.caches import CacheRule
from vmrunner.model.choices import Network
from vmrunner.model.cloud import Address, Key, Offer, Ref, Role, Scope
from vmrunner.model.money import NO_COST, UNKNOWN_RATE, Cost, Rate
from vmrunner.model.processes import Process
from vmrunner.model.states import BuildState, Death, InstanceState, Reason, Result, Start
from vmrunner.model.usage import NO_USAGE, BuildUsage

#: The tenant of submissions without HTTP.
LOCAL_TENANT: Final = "local"

# --- processes ----------------------------------------------------------------------------------

#: The kind of an engine that its parent announced, before it is up and says so itself.
STARTING: Final = "starting"


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Access to one instance, and to nothing else: its own key pair, and the host key we planted.

    Both are OpenSSH text. Kept sealed in the ledger, erased when the row closes.
    """

    user_private: str
    host_public: str


#: What may run the container; runsc is gVisor, a kernel of its own between the build and the VM's.
RUNC: Final = "runc"
RUNSC: Final = "runsc"
RUNTIMES: Final = (RUNC, RUNSC)

# --- what the user submits ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a build. Exactly one of `run` (a shell line) and `argv` (one command) is set.
    `name`: shown in place of the command. `timeout`: "5m", seconds or a timedelta; None: only the
    build's. `env`: variables in addition to the build's."""

    run: str | None = None
    argv: tuple[str, ...] = ()
    name: str = ""
    timeout: str | float | timedelta | None = None  # seconds, once it is submitted
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name, or else the shell line or command."""
        return self.name or (self.run if self.run is not None else " ".join(self.argv))


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRule:
    """Files to bring back: a glob relative to the work directory. `always`: after failed steps too;
    default: only after success."""

    glob: str
    always: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSpec:
    """All options of a build, as submitted, without the values of secrets. Durations are seconds,
    sizes bytes."""

    steps: tuple[Step, ...]
    provider: str
    container: str
    timeout: float
    ttl: float
    image: str | None = None
    bootstrap: bool = False  # the image is not ours: the VM installs what it needs at boot
    docker: bool = False  # the build gets its own Docker
    privileged: bool = False
    runtime: str = RUNC
    source: str | None = None  # `sources.shown` of what the user named; its bytes lie in the spool
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names only
    registry_secret: str | None = None  # the one for the pull of the container alone
    artifacts: tuple[ArtifactRule, ...] = ()
    caches: tuple[CacheRule, ...] = ()  # their keys are what the source's files made of them
    labels: Mapping[str, str] = field(default_factory=dict)
    queue_timeout: float | None = None
    keep_on_failure: float | None = None
    network: NetworkPolicy = Network.OPEN
    name: str = ""
    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    spot: bool = False
    retry_on_loss: bool = False
    priority: int = 0  # higher starts first
    keep_logs: float | None = None  # seconds that log and artifacts outlive it; None: as configured
    idempotency_key: str | None = None
    sandbox_ttl: float | None = None  # set: a sandbox, without steps; seconds from when it is ready

    @property
    def title(self) -> str:
        """Steps, joined into one line."""
        return " ; ".join(step.title for step in self.steps) or "(sandbox)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a build's life; `ended` is None while it lasts."""

    state: BuildState
    started: float
    ended: float | None = None

    def seconds(self, now: float) -> float:
        return (self.ended if self.ended is not None else now) - self.started


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
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
    cancel: Reason | None = None  # who asked for its end: user, owner_gone, …
    cancelled_at: float | None = None
    hold_until: float | None = None
    steps_started: bool = False
    phases: tuple[Phase, ...] = ()
    cost: Cost = NO_COST  # of all its VMs until it ended, or the last of them was gone
    tenant: str = LOCAL_TENANT
    actor: str = ""  # who submitted it, such as token:t-01…; empty: not noted
    actor_name: str = ""  # of that token, where it was looked up
    lease_until: float | None = None  # set: foreground over HTTP, ends unless the client renews it
    source_object: str | None = None  # in the store; None: it lies in a spool, or there is none
    log_object: str | None = None  # the whole log, once it is there
    artifacts_object: str | None = None
    collected: int | None = None  # the epoch at which its artifacts were brought, if any were
    removed_at: float | None = None  # when its log and artifacts were
    usage: BuildUsage = NO_USAGE

    @property
    def finished(self) -> bool:
        return self.state is BuildState.FINISHED

    @property
    def was_ready(self) -> bool:
        """True for a sandbox that could be used."""
        return self.spec.sandbox_ttl is not None and self.hold_until is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """A row of `instances`, as it was when it was read."""

    id: str
    build: str | None  # None: of a pool, and no build claimed it, or of a template's making
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
    pool: str | None = None
    shape: str | None = None  # of its pool when it was made
    start: Start | None = None  # how its build came by it; None: that is not known yet
    claimed_at: float | None = None  # when a build claimed it from its pool
    due: float | None = None  # when that build must be over: never raised
    rate: Rate = UNKNOWN_RATE  # as it was when it was asked for
    parked_at: float | None = None  # when it was seen parked
    container: str | None = None  # of a unit whose image was given by a tag: by digest

    @property
    def end(self) -> float:
        """The time by which it must be gone: `due` where a build claimed it from a pool."""
        return self.deadline if self.due is None else min(self.due, self.deadline)

    @property
    def begun(self) -> float:
        """The time from which it is its build's: its birth, or the claim from a pool."""
        return self.created_at if self.claimed_at is None else self.claimed_at

    @property
    def scope(self) -> Scope:
        return self.offer.scope

    @property
    def key(self) -> Key:
        return Key(self.offer.scope, self.id, self.ref.id if self.ref else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildEvent:
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


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """A chunk without its bytes and its time; `size` is theirs in bytes."""

    seq: int
    attempt: int
    offset: int
    line: int
    size: int


class LogLine(str):
    """One line of a log as text, without its newline. Terminal sequences other than colours are
    removed, so it is safe to print. `raw`: its bytes, unchanged. `seq`: its number, from 1; never
    repeated. `time`: epoch seconds at which its first byte came."""

    __slots__ = ("raw", "seq", "time")
    raw: bytes
    seq: int
    time: float

    def __new__(cls, text: str, raw: bytes, seq: int, time: float) -> LogLine:
        line = super().__new__(cls, text)
        line.raw = raw
        line.seq = seq
        line.time = time
        return line


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits on starting VMs and keeping them, in seconds or counts."""

    max_ttl: float = 4 * 3600
    max_instances: int = 20
    newborn: float = 15 * 60  # absence means nothing so soon after birth
    sighting_gap: float = 60  # between the two sightings that count
    grace: float = 60  # G
    requested: float = 15 * 60  # longest stay in each state
    booting: float = 15 * 60
    ready: float = 10 * 60
    parking: float = 10 * 60
    waking: float = 10 * 60
    deleting: float = 15 * 60
    orphan_cap: int = 10
