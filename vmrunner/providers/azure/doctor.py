"""`doctor` for Azure: the right to delete first, then what a launch needs. Each finding with its
fix; one that fails hinders no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import CredentialsRefused, Throttled, Uncertain
from vmrunner.lib import resources
from vmrunner.model import Finding, Level, Network, Spec
from vmrunner.providers.azure import deadline_schedules, guard
from vmrunner.providers.azure.client import (
    DELETE_ADDRESS,
    DELETE_DISK,
    DELETE_IMAGE,
    DELETE_INTERFACE,
    DELETE_SNAPSHOT,
    DELETE_VERSION,
    SECURITY_GROUP,
    SUBNET,
    Answer,
    last,
    part,
)
from vmrunner.providers.azure.isolation import holes, ways_out
from vmrunner.providers.azure.permissions import ACTION, FIX
from vmrunner.providers.azure.quotas import needs
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.capacity_pools import markets
from vmrunner.providers.common.findings import (
    bad,
    each,
    of_clock,
    of_failure,
    of_holes,
    of_no_wall,
    of_right,
    ok,
    warning,
)

if TYPE_CHECKING:
    from vmrunner.providers.azure.provider import AzureProvider

#: A token lives for an hour; a clock that is further off takes an old one for a new one.
_REFUSED: Final = 3000.0
_LOOK: Final = "see docs/azure.md"
_GUARDED: Final = "until then the guard alone ends what outlives vmrunner"
#: By which leftovers end. Roles of former versions have not all of them.
_LEFT: Final = tuple(
    api.action
    for api in (
        *(DELETE_DISK, DELETE_INTERFACE, DELETE_ADDRESS),
        *(DELETE_SNAPSHOT, DELETE_IMAGE, DELETE_VERSION),
    )
)

Check = Callable[["AzureProvider"], Iterator[Finding]]


def check(provider: AzureProvider) -> list[Finding]:
    """Run all checks. Whether we are let in comes first: without that nothing else can be told."""
    try:
        group = provider.identity.group()
    except CallFailed as failed:
        return [of_failure("group", failed.error, _LOOK)]
    found = [ok("group", f"{group} of {provider.options.subscription}")]
    checks = {name: partial(part_of, provider) for name, part_of in _CHECKS}
    return [*found, *each(checks, _LOOK)]


def _delete(provider: AzureProvider) -> Iterator[Finding]:
    right = provider.permissions.ask()
    tell = f"see that these credentials have {ACTION}: {_role()}"
    yield of_right("delete", right, allow=FIX, tell=tell)
    for action in provider.permissions.lacking(_LEFT) if right.may else ():
        text = f"{action} is denied: what is left of these stays"
        yield warning("delete", text, f"give these credentials the role as it is now: {_role()}")


def _role() -> Path:
    return resources.path("deploy") / "azure/roles/vmrunner.json"


def _alone(provider: AzureProvider) -> Iterator[Finding]:
    """Check that the group is this installation's alone, since untagged resources count as ours by
    their names there; and that a sweep reads all of it."""
    installation = provider.options.installation
    others: list[str] = []
    pages = list(provider.sweep())
    yield from of_holes(pages, f"see that these credentials have the role: {_role()}")
    for page in pages:
        if page.scope.place == provider.options.group:
            others += [
                f"{resource.ref.kind.value} {resource.ref.id}"
                for resource in page.resources
                if resource.tag("installation") != installation
            ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        yield bad(
            "group",
            f"{provider.options.group} holds what is not this installation's: "
            f"{', '.join(others[:3])}{more}",
            "give each installation a resource group of its own",
        )


def _image(provider: AzureProvider) -> Iterator[Finding]:
    image = provider.catalog.image()
    yield ok("image", f"{image.id} {image.architecture}".rstrip())


def _sizes(provider: AzureProvider) -> Iterator[Finding]:
    options = provider.options
    options.check_launch()
    sizes = provider.catalog.sizes()
    names = [size.name.lower() for size in sizes]
    missing = [name for name in options.machine_types if name.lower() not in names]
    if missing:
        yield Finding(
            check="machine types",
            level=Level.WARNING if names else Level.ERROR,
            message=f"{options.location} has no {', '.join(missing)} for this subscription",
            fix=f"providers.{provider.name}.machine_types, or another location",
        )
    else:
        yield ok("machine types", f"{options.location}: {', '.join(options.machine_types)}")
    image = provider.catalog.image()
    if lacks := [why for size in sizes if (why := size.refusal(image))]:
        yield Finding(
            check="machine types",
            level=Level.WARNING if len(lacks) < len(sizes) else Level.ERROR,
            message=f"not offered: {'; '.join(lacks)}",
            fix=f"vmrunner image build --provider {provider.name} makes one for both kinds of "
            f"disk, or name other sizes in providers.{provider.name}.machine_types",
        )
    if options.os_disk == "ephemeral" and options.guard is None:
        yield warning(
            "machine types",
            "Azure cannot deallocate a VM whose disk is on its host: none is armed, and without "
            "the guard only vmrunner ends it",
            f"install the guard, or leave providers.{provider.name}.os_disk out",
        )


def _network(provider: AzureProvider) -> Iterator[Finding]:
    provider.options.check_launch()
    options = provider.options
    words = options.subnet_id.strip("/").split("/")
    subnet = provider.client(
        SUBNET, group=words[3], virtual_network_name=words[7], subnet_name=words[9]
    )
    of_subnet = part(subnet, "properties", "networkSecurityGroup", "id")
    groups = _security_groups(provider, of_subnet, options.security_group_id())
    several = part(subnet, "properties", "addressPrefixes") or ()
    prefix = part(subnet, "properties", "addressPrefix")
    own_ranges = [*several, *([prefix] if prefix and prefix not in several else [])]
    found = list(holes(groups, own_ranges, public=options.address == "public"))
    yield from found
    if not found:
        yield ok("network", f"subnet {words[9]}: builds do not reach each other")
    yield from _no_network(provider, of_subnet, own_ranges)


def _no_network(
    provider: AzureProvider, of_subnet: str | None, own_ranges: Sequence[str]
) -> Iterator[Finding]:
    """Check that a VM of `network: none` gets nowhere, and that no other build gets to it, to which
    it might answer."""
    options = provider.options
    if options.security_group_none is None:
        yield of_no_wall(provider.name, "security_group_none")
        return
    groups = _security_groups(provider, of_subnet, options.security_group_id(Network.NONE))
    beside = holes(groups, own_ranges, public=options.address == "public")
    found = [*ways_out(groups[-1]), *(replace(hole, check="network none") for hole in beside)]
    yield from found
    if not found:
        yield ok("network none", f"{groups[-1].get('name')}: nothing goes out")


def _security_groups(provider: AzureProvider, *identifiers: str | None) -> list[Answer]:
    return [
        _security_group(provider, identifier)
        for identifier in dict.fromkeys(filter(None, identifiers))
    ]


def _security_group(provider: AzureProvider, identifier: str) -> Answer:
    where = identifier.strip("/").split("/")[3]
    return provider.client(
        SECURITY_GROUP, group=where, network_security_group_name=last(identifier)
    )


def _offers(provider: AzureProvider) -> Iterator[Finding]:
    offer = provider.offers(Spec())[0]
    yield ok("launch", f"{offer.machine_type} in {offer.place}, {offer.market.value}")


def _quotas(provider: AzureProvider) -> Iterator[Finding]:
    """Check that the location's limits let one VM of each size run."""
    options = provider.options
    options.demand_launch()
    wanted = markets(options.spot, wanted=False, name=provider.name)
    usages, reported = provider.quotas.usages(), set()
    for market, size in product(wanted, provider.catalog.sizes()):
        for name, needed in needs(size, market, options).items():
            usage = usages.get(name.lower())
            if usage is None or name in reported:
                continue
            reported.add(name)
            text = f"{options.location}: {name} {usage.used} of {usage.limit}"
            if usage.limit - usage.used < needed:
                yield bad("quota", f"{text}: one VM needs {needed}", f"raise {name}")
            else:
                yield ok("quota", text)


def _clock(provider: AzureProvider) -> Iterator[Finding]:
    yield of_clock(provider.clock.skew or 0.0, refused=_REFUSED, whose="Azure")


def _schedule(provider: AzureProvider) -> Iterator[Finding]:
    """Check that Azure would arm a VM: what is not registered, not allowed or not taken by it is
    known before the first launch."""
    options = provider.options
    options.check_launch()
    try:
        deadline_schedules.check(provider.client, options, provider.home, provider.now())
    except CallFailed as failed:
        error = failed.error
        text = f"Azure would end no VM past its deadline: {error.args[0]}"
        if isinstance(error, (Throttled, Uncertain)):
            yield warning("schedule", f"it cannot be told: {error.args[0]}", "ask again")
        elif isinstance(error, CredentialsRefused):
            yield bad("schedule", text, error.hint or _LOOK)
        else:
            yield bad("schedule", text, f"update vmrunner; {_GUARDED}")
    else:
        after = deadline_schedules.AFTER // 60
        yield ok("schedule", f"deallocates a VM {after} min past its deadline")


def _guard(provider: AzureProvider) -> Iterator[Finding]:
    yield from guard.findings(provider.options, provider.client, provider.now)


def unguarded(provider: AzureProvider) -> Iterator[Finding]:
    """The layers in the subscription that are missing, or would not work."""
    for finding in (*_schedule(provider), *_guard(provider)):
        if finding.level is not Level.OK:
            yield finding


_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("delete", _delete),
    ("group", _alone),
    ("image", _image),
    ("machine types", _sizes),
    ("network", _network),
    ("launch", _offers),
    ("quota", _quotas),
    ("clock", _clock),
    ("schedule", _schedule),
    ("guard", _guard),
)
