"""The nouns between core and providers: requests to a cloud, and what it shows.

An instance id names one VM for ever: it is the VM's name in the cloud, its idempotency token
and its row. A `Ref` is what a provider calls a resource; a `Key` is what we look it up by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from vmrunner.model.allow_list import NetworkPolicy
from vmrunner.model.choices import Network
from vmrunner.model.states import Reason, Start

TAG: Final = "vmrunner:"


class Kind(StrEnum):
    """A billable thing in a cloud."""

    INSTANCE = "instance"
    DISK = "disk"
    ADDRESS = "address"
    INTERFACE = "interface"
    SNAPSHOT = "snapshot"
    IMAGE = "image"  # that its build has not finished; lasting ones are none of ours
    KEY = "key"
    GROUP = "security_group"  # bills nothing, but is in the way
    SPOT_REQUEST = "spot_request"
    SCHEDULE = "schedule"
    SECRET = "secret"  # noqa: S105 - bills nothing, and holds a VM's keys
    #: A form that orders name, such as a task definition: bills nothing, and has no row. Its id is
    #: what `Offer.image` says.
    DEFINITION = "definition"


class Role(StrEnum):
    """Purpose of one of our resources."""

    BUILD = "build"
    IMAGE = "image"
    GUARD = "guard"
    POOL = "pool"


#: The roles of VMs that serve a build, now or later.
SERVING: Final = (Role.BUILD, Role.POOL)
#: The roles of all VMs, disks and addresses that end at their deadline.
MORTAL: Final = (*SERVING, Role.IMAGE)


class Trait(StrEnum):
    """A feature that a build may need of the system that starts its container."""

    DOCKER = "docker"  # a Docker of its own
    PRIVILEGED = "privileged"
    GVISOR = "gvisor"
    NO_NETWORK = "no-network"
    VM_IMAGE = "vm-image"  # the choice of what is around the container
    BOOTSTRAP = "bootstrap"  # the same, of a stock image
    PRIVATE_PULL = "private-pull"  # of the container's image, with a secret of the build's


class Market(StrEnum):
    """Payment model of a machine: on demand or spot."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"


class Power(StrEnum):
    """Life state of a resource as its provider shows it, in our words."""

    PENDING = "pending"  # being made
    RUNNING = "running"  # on; for a disk or an address: there
    STOPPING = "stopping"  # a delete or a stop is under way; it may still bill
    STOPPED = "stopped"  # off, but it exists and its disks bill
    DEAD = "dead"  # seen terminated: nothing bills


# --- where -------------------------------------------------------------------------------------


class Scope(NamedTuple):
    """The account and place in which a provider really acts, verified by its driver.

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
    """The provider's own id of a resource."""

    scope: Scope
    kind: Kind
    id: str


class Key(NamedTuple):
    """A lookup key: our instance id, with the provider's own id once it is known."""

    scope: Scope
    instance: str
    ref: str | None = None


class Address(NamedTuple):
    """The place at which a provider's channel (`lib/channels.py`) finds an instance's sshd: a host
    and its port, or a Unix socket's absolute path."""

    host: str
    port: int = 22  # of a socket it says nothing

    def __str__(self) -> str:
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address in a text, as `str` writes it."""
        host, _, port = text.rpartition(":")
        return cls(text) if text.startswith("/") else cls(host, int(port))


# --- what a provider is asked for, and what it shows --------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A build's demands on a machine. None stands for the provider's own default."""

    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    spot: bool = False
    image: str | None = None
    network: NetworkPolicy = Network.OPEN
    needs: frozenset[Trait] = frozenset()  # of who realises the container's image


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
class Identity:
    """Keys that identify one VM, for a provider that hands them over after the boot. OpenSSH
    text."""

    user_key: str  # public
    host_key: str  # private
    host_public: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The container of a build, as far as it can be started before the build is known. A unit is
    started from its image (`providers.port.StartsUnits`)."""

    container: str
    runtime: str
    log_bytes: int
    docker: bool = False
    privileged: bool = False

    @property
    def waiting(self) -> Shape:
        """Return the container that can wait for such a build: without Docker or extra rights. The
        build itself then gets a fresh container."""
        return replace(self, docker=False, privileged=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One create call, frozen before it is sent; the identical order again is the same VM."""

    instance: str
    build: str  # "": of a pool, and no build claimed it, or of a template's making
    installation: str
    generation: str
    role: Role
    offer: Offer
    deadline: float  # E
    user_data: bytes
    network: NetworkPolicy = Network.OPEN
    tags: Mapping[str, str] = field(default_factory=dict)  # the user's own, beside `tags_of`
    max_ttl: float | None = None  # the limit when it was made; None: made before this was told
    identity: Identity | None = None  # also in `user_data`; None: only there
    shape: Shape | None = None
    pool: str | None = None
    pull: str | None = field(default=None, repr=False)  # of a unit: a Docker configuration


def tags_of(order: Order) -> dict[str, str]:
    """Return the tags with which every resource is created, for providers that allow `:`."""
    limit = {} if order.max_ttl is None else {f"{TAG}max-ttl": str(int(order.max_ttl))}
    whose = {"pool": order.pool or ""} if order.role is Role.POOL else {"build": order.build}
    return {
        **order.tags,
        f"{TAG}installation": order.installation,
        f"{TAG}generation": order.generation,
        f"{TAG}role": order.role.value,
        f"{TAG}instance": order.instance,
        **{f"{TAG}{name}": value for name, value in whose.items() if value},
        f"{TAG}expires-at": str(int(order.deadline)),
        **limit,
        "Name": order.instance,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One instance as its provider shows it when asked."""

    ref: Ref
    power: Power
    address: Address | None = None
    created_at: float | None = None
    detail: str = ""  # the provider's own words: preempted, guest shut down, …
    preempted: bool = False
    self_ended: bool = False  # the guest switched itself off
    #: Why the system accepted it and cannot place or start it: of `NO_CAPACITY` and `QUOTA` the
    #: next offer is tried, of other reasons none would help.
    unfit: Reason | None = None
    start: Start | None = None  # how it came up, once that is known
    #: Of a unit: its container's image by digest, as its system found it. Shown with its first
    #: address, if ever.
    container: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerEnd:
    """End of a unit's container as the system that ran it saw it. None: not known."""

    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    message: str = ""  # the system's own words


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One resource in a sweep. Tag values are attacker input until they match a row."""

    ref: Ref
    power: Power
    created_at: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: Ref | None = None  # what it is attached to
    near: str = ""  # what makes it look like ours, whatever its tags say: our image, our network
    near_after: float = 0.0  # seconds of age from which that says anything

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
        """The deadline from its tag, in epoch seconds."""
        return self._seconds("expires-at")

    @property
    def max_ttl(self) -> float | None:
        """The longest life that was allowed at its creation, in seconds, from its tag."""
        return self._seconds("max-ttl")

    def _seconds(self, name: str) -> float | None:
        """Return a tag's number; None when the tag is missing or not a plain decimal number."""
        text = self.tag(name) or ""
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
    """Fate of one delete."""

    ACCEPTED = "accepted"
    MISSING = "missing"  # success for the caller, but no proof of death
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Outcome of one delete, with the provider's error when it failed."""

    fate: Fate
    error: str = ""


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
