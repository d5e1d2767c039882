"""The port: what a cloud or host must be able to do, and nothing else.

Nothing here blocks until a VM is ready: `create` and `delete` mean *accepted*, progress is seen
by `look` and `sweep`. Only `lifecycle` and `reaper` draw conclusions from absence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.model import (
        Bill,
        ContainerEnd,
        Finding,
        HostUsage,
        Key,
        Offer,
        Order,
        Outcome,
        Page,
        Ref,
        Role,
        Scope,
        Seen,
        Shape,
        Spec,
    )


@runtime_checkable
class Provider(Protocol):
    """A driver for one cloud or host, configured by name. Every method may be called from any
    thread. Errors are translated at the driver's edge into `errors.ProviderError`s."""

    @property
    def name(self) -> str:
        """The configured name."""

    @property
    def scopes(self) -> frozenset[Scope]:
        """Scopes in which it acts, verified: whose account, which host; never from the
        configuration alone."""

    @property
    def creates(self) -> int:
        """Number of creates at once: more where each waits long for its answer."""

    def now(self) -> float:
        """The provider's clock, epoch seconds: its last answer's date plus monotonic time since."""

    def offers(self, spec: Spec) -> Sequence[Offer]:
        """Offers that meet a spec, best first. Raises `BadOrder` when the spec can never be met."""

    def create(self, order: Order) -> Ref:
        """Ask for one VM. Returns when it is accepted, not booted. The identical order again
        returns the same VM, also from another process. `Refused`: nothing was created.
        `Uncertain`: it may have been; only the identical order again or `look` can tell."""

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        """Many in one call. A key that is missing in the answer is *not visible*, not dead."""

    def sweep(self) -> Iterator[Page]:
        """Yield all that the provider shows in its scopes, of any maker, page by page, every state
        but the dead. A failed part is a page with `error`; it never raises half way. An empty part
        is a page too: of a sweep without any page nothing is known."""

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        """Delete resources of any kind. Missing is success; accepted is not finished. One bad item
        never blocks another: every ref gets its own outcome."""

    def console(self, ref: Ref) -> str:
        """The last boot output, at most 64 KiB, for the build's log when boot fails."""

    def check(self) -> Sequence[Finding]:
        """Check whether it can be used: the right to delete first, then image, quota, network,
        clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookPace:
    """Seconds from one look at an instance to the next."""

    fresh: float = 0.25  # it changes, in the first minute of that
    changing: float = 2.0  # … later, until it takes ten minutes
    steady: float = 10.0  # it just goes on; at most 30


@runtime_checkable
class PacesLooks(Protocol):
    """A provider that says how often its VMs may be looked at; for others `LookPace` holds as it
    is. A refusal that concerns one VM alone is `Throttled(…, instance=ID, wait=SECONDS)`: it is
    raised where nothing else was seen, and pauses that VM."""

    @property
    def look_every(self) -> LookPace:
        """The pace; makes no call."""


@runtime_checkable
class Arms(Protocol):
    """A provider whose cloud keeps a deadline that is armed after the create, as its own effect."""

    def arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        """Make the cloud itself end `ref` some minutes past `deadline`. Returns the resource that
        does, to be deleted once the VM is dead; None: it is not set up for that where this VM is.
        The identical arming again is the same one. Raises `ProviderError`."""


@runtime_checkable
class Seals(Protocol):
    """A provider whose cloud can switch a VM's metadata service off from outside."""

    def seal(self, ref: Ref) -> None:
        """Switch it off for good; accepted when it returns. Again is no error. Raises
        `ProviderError`."""


@runtime_checkable
class LowersDeadline(Protocol):
    """A provider that itself ends a VM at its deadline, and can be told an earlier one."""

    def lower(self, ref: Ref, due: float) -> None:
        """Make the VM end at `due`, in epoch seconds, at the latest; acknowledged when it returns.
        A later time changes nothing. Raises `ProviderError`."""


@runtime_checkable
class Parks(Protocol):
    """A provider that can stop a VM so that it wakes with its disk: only that bills meanwhile."""

    def park(self, ref: Ref) -> None:
        """Ask that it stop; accepted when it returns. Again is no error. Raises `ProviderError`."""

    def wake(self, ref: Ref) -> None:
        """Ask that it go on; accepted when it returns. Again is no error. `Refused`: it stays
        off. Raises `ProviderError`."""


@runtime_checkable
class TellsUsage(Protocol):
    """A provider that sees from outside what a VM uses."""

    def used(self, ref: Ref) -> HostUsage | None:
        """Usage of the VM since its start; None: it is not there, and nothing is known. Raises
        `ProviderError`."""


@runtime_checkable
class Bills(Protocol):
    """A provider whose VMs are billed in parts: machine, disk, address."""

    def bill(self, offer: Offer, role: Role) -> Bill:
        """Parts that a VM of this offer in this role is billed for, by the items of its price
        list; makes no call."""


@runtime_checkable
class TellsPrices(Protocol):
    """A provider whose cloud has a price list."""

    def told_prices(self) -> Mapping[Scope, Mapping[str, float]]:
        """Ask the cloud, which takes a while: USD an hour by scope and item of `Bills`. What it
        does not tell is left out. Raises `ProviderError`."""


@runtime_checkable
class ShowsGuardedRoles(Protocol):
    """A provider in whose account a guard can live, which tells whose VMs it ends."""

    def guarded_roles(self) -> frozenset[str] | None:
        """Roles of VMs that the installed guard ends; None: none is installed, or none that passed
        within its last three periods by the cloud's clock. Raises `ProviderError`."""


@runtime_checkable
class BootsLocalImages(Protocol):
    """A provider whose VMs boot images of this host's cache, and take their room from it."""

    def check_size(self, spec: Spec, *, least: int = 0, image: str = "") -> tuple[int, int, int]:
        """The VM's processors, memory and disk, of which its image takes `least`; that need not be
        made yet. Raises `BadOrder` for what this host can never give."""

    def check_room(self, disk: int) -> None:
        """Raises `BadOrder` where this host can never hold what such a disk may grow to."""


@runtime_checkable
class HoldsNoNetwork(Protocol):
    """A provider that can hold a VM to `network: none` from outside, so that root in it has no
    network either. One that does not say so holds the build's container alone to it."""

    @property
    def holds_no_network(self) -> bool:
        """True if it does so, as it is configured."""


@runtime_checkable
class HoldsAllowLists(Protocol):
    """A provider that can hold a VM to an allow-list, from outside of it."""

    @property
    def holds_allow_lists(self) -> bool:
        """True if it can here and now."""


@runtime_checkable
class StartsUnits(Protocol):
    """A provider that starts a build's container image itself, as one unit, where others start a
    VM with Docker in it. `create` gets the image by the order's `shape`, and the keys by its
    `identity`; sshd and supervisor are put into the unit so that the build can only read them."""

    @property
    def box(self) -> Box:
        """Way to the supervisor in the unit, with the promises that are kept."""


@runtime_checkable
class TellsContainer(Protocol):
    """A provider of units whose system tells how a container ended that said no last word."""

    def ended(self, ref: Ref) -> ContainerEnd | None:
        """The end of the build's container in this unit; None: it is not known, or not yet. Raises
        `ProviderError`."""


class TemplateMaker(Protocol):
    """Makes the frozen VMs that builds' VMs of one shape start from."""

    def missing(self, order: Order) -> str | None:
        """Return the key of the template that such an order wants and does not find. None: it has
        one, or none would fit it."""

    def begin(self, key: str) -> AbstractContextManager[Any]:
        """Yield a place for a template, which goes unless it is published. Raises ProviderError
        where another process makes that one."""

    def boot(self, order: Order, template: Any) -> Ref:
        """Boot a VM that settles and is frozen there."""

    def await_frozen(self, order: Order) -> None:
        """Wait until that VM is frozen. Raises ProviderError if it ended otherwise."""

    def clone(self, order: Order, template: Any) -> Ref:
        """Start a VM from what was frozen and has no name yet."""

    def publish(self, template: Any, key: str, order: Order) -> object:
        """Let builds have it, and make room for it. `order`: as builds that it is for send."""

    def trim(self) -> Sequence[Any]:
        """Remove what has no room or no image any more, and what makers left. Returns the
        templates that went."""


@runtime_checkable
class StartsFromTemplates(Protocol):
    """A provider whose VMs can start from a frozen one."""

    def template_maker(self) -> TemplateMaker:
        """Return the maker of its templates."""

    def wanted_templates(self) -> Sequence[tuple[Spec, Shape]]:
        """Requests of builds that lately had to boot, the last first."""


#: What an opener may ask for beside the options of the configuration. `installation`: whose VMs
#: these are. `used`: places in which this provider ever launched. `state_dir`, `cache_dir`: of this
#: host. `current`: a function that tells the hash of vmrunner's own local image.
Need = Literal["installation", "used", "state_dir", "cache_dir", "current"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """All that vmrunner knows of a kind of provider before it opens one.

    It must be cheap to import. "module:name" is imported only when it is used: `settings` with the
    configuration, `options` by `config show`, `prices` with the first cost; `open` is a function,
    which imports the SDK."""

    kind: str  # as a configuration says it, and its scopes: a lower-case word
    settings: str  # "module:name" of its `ProviderSettings`
    open: Callable[..., Provider]  # (name, **options): what is set of its settings, and its `needs`
    needs: frozenset[Need] = frozenset()
    options: str = ""  # "module:name" of a dataclass whose defaults hold where nothing is set
    extra: str = ""  # what pip installs where the SDK is missing
    platform: str = "local"  # its VMs get `cloud-init/PLATFORM.yaml`; or a path without `.yaml`
    #: Seconds past the deadline at which the guest powers itself off: more than 0 where a VM that
    #: is off loses the cloud's own deadline while its disk still bills.
    guest_timer_delay: float = 0.0
    #: "module:name" of USD an hour by machine type, or by the items of its bills (`Bills`).
    prices: str = ""
    priced_on: str = ""  # the day of that table, as 2025-01-31
    host_clock: bool = False  # its VMs are timed by this machine's clock, always
    own_host: bool = False  # its VMs run on the user's own machine, and cost nothing
    #: A scope is one host: only its processes reach the VMs there, and each VM ends at its deadline
    #: by that host's clock, without any other process.
    host_bound: bool = False
    told: Mapping[str, str] = field(default_factory=dict)  # options that a part of a scope tells
    ids_are_names: bool = False  # a VM and its disk have no id but the instance's
    parks: bool = False  # its VMs can be parked (`Parks`)
    #: "module:name" of a function that gets one which opens the provider, and returns the `Channel`
    #: to its instances' sshd (`lib/channels.py`); without it that is TCP to their address.
    channel: str = ""
    machine_types: str = ""  # its setting that lists the types it offers; "": none does
    units: bool = False  # its providers may start units (`StartsUnits`), as they are configured
    #: The cloud shows the name of an instance, so that it is found by that. False: `look` finds
    #: recorded references alone. An engine that got no answer sends the identical order again, and
    #: nothing else is concluded: in time the row ends as one without a VM, the VM as one without a
    #: row.
    names: bool = True
    max_ttl: float = math.inf  # seconds: no VM of it can live for longer
    guard: str = ""  # who makes one: "vmrunner", or the Terraform module at this path in `deploy/`
