"""`doctor` for EC2: the right to delete first, then what a launch needs. Each finding with its fix;
one that fails hinders no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError
from vmrunner.model import (
    TAG,
    Finding,
    Kind,
    Level,
    Market,
    Network,
    Offer,
    Order,
    Ref,
    Role,
    Scope,
    Spec,
)
from vmrunner.providers.common.call_failed import CallFailed
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
from vmrunner.providers.ec2 import create_request, deadline_schedules
from vmrunner.providers.ec2.client import DEFAULT_QUOTA, QUOTA, ROLE, RUN, VPC
from vmrunner.providers.ec2.describe_instances import filtered
from vmrunner.providers.ec2.error_codes import MAKE_SPOT_ROLE
from vmrunner.providers.ec2.guard import health
from vmrunner.providers.ec2.isolation import holes, ways_out
from vmrunner.providers.ec2.permissions import ACTION, NO_ROLE, WOULD

if TYPE_CHECKING:
    from vmrunner.providers.ec2.provider import Ec2Provider

#: AWS refuses a request that is signed five minutes off.
_REFUSED: Final = 240.0
_FEW_ADDRESSES: Final = 10

#: Quotas on running vCPUs, by the family that they count: on demand, spot.
_QUOTAS: Final = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
}
_STANDARD: Final = frozenset("acdhimrtz")
_NO_QUOTA: Final = "NoSuchResourceException"
#: Without it EC2 refuses the first spot VM, though it lets a dry run of it through.
_SPOT_ROLE: Final = "AWSServiceRoleForEC2Spot"

SEAL: Final = "ec2:ModifyInstanceMetadataOptions"
#: The id of no instance.
NO_INSTANCE: Final = "i-00000000000000000"

Check = Callable[["Ec2Provider"], Iterator[Finding]]


def check(provider: Ec2Provider) -> list[Finding]:
    """Run all checks. Our identity comes first: without it nothing else can be told."""
    try:
        caller = provider.identity.caller()
    except CallFailed as failed:
        return [of_failure("identity", failed.error, "log in to AWS")]
    where = ", ".join(provider.options.regions)
    found = [ok("identity", f"{caller.arn}, account {caller.account}, in {where}")]
    checks = {name: partial(part, provider) for name, part in _CHECKS}
    return [*found, *each(checks, _LOOK)]


_LOOK: Final = "see docs/configuration.md, kind ec2"


def _terminate(provider: Ec2Provider) -> Iterator[Finding]:
    """A machine of ours is asked about, if there is one; else the policy."""
    right = provider.permissions.simulate()
    if right.may is not False:
        options = provider.options
        instances = filtered(
            provider.client, options.region, f"tag:{TAG}installation", [options.installation]
        )
        living = (
            i["InstanceId"] for i in instances if i["State"]["Name"] in ("pending", "running")
        )
        instance = next(living, None)
        if instance is not None:
            right = provider.permissions.dry_run(instance)
    yield of_right(
        "terminate",
        right,
        allow=f"allow {ACTION}",
        tell="allow iam:SimulatePrincipalPolicy to these credentials",
        unknown="it cannot be told before the first launch",
    )


def _sweep(provider: Ec2Provider) -> Iterator[Finding]:
    policy = f"give these credentials the policy: vmrunner guard policy {provider.name}"
    yield from of_holes(provider.sweep(), policy)


def _image(provider: Ec2Provider) -> Iterator[Finding]:
    image = provider.catalog.image()
    yield ok("image", f"{image.id} {image.name}, {image.architecture}")


def _subnets(provider: Ec2Provider) -> Iterator[Finding]:
    provider.options.check_launch()
    for name, subnet in provider.catalog.subnets().items():
        free = int(subnet.get("AvailableIpAddressCount", 0))
        text = f"{name} in {subnet.get('AvailabilityZone')}: {free} addresses free"
        if free < _FEW_ADDRESSES:
            yield warning("subnet", text, "use a larger subnet")
        else:
            yield ok("subnet", text)


def _groups(provider: Ec2Provider) -> Iterator[Finding]:
    provider.options.check_launch()
    groups, subnets = provider.catalog.groups(), list(provider.catalog.subnets().values())
    found = list(holes(groups, subnets))
    yield from found
    if not found:
        names = ", ".join(group["GroupId"] for group in groups)
        yield ok("security group", f"{names}: builds do not reach each other")


def _no_network(provider: Ec2Provider) -> Iterator[Finding]:
    """Check that a VM of `network: none` gets nowhere, not even as root."""
    options = provider.options
    if not options.security_groups_none:
        yield of_no_wall(provider.name, "security_groups_none")
        return
    subnets = provider.catalog.subnets(Network.NONE)
    groups = provider.catalog.groups(Network.NONE)
    found = [*ways_out(groups), *holes(groups, list(subnets.values()))]
    for vpc in sorted({subnet["VpcId"] for subnet in subnets.values()}):
        attribute = provider.client(options.region, VPC, VpcId=vpc, Attribute="enableDnsSupport")
        if attribute["EnableDnsSupport"]["Value"]:
            found.append(
                warning(
                    "network none",
                    f"{vpc} has Amazon's resolver, to which no security group closes the way: "
                    "names that a build asks for go out",
                    "a VPC of its own with enableDnsSupport off, as subnets_none; or deny all "
                    "names by Route 53 Resolver DNS Firewall",
                )
            )
    yield from found
    if not found:
        names = ", ".join(group["GroupId"] for group in groups)
        yield ok("network none", f"{names}: nothing goes out")


def _dry_run(provider: Ec2Provider) -> Iterator[Finding]:
    """Check by a dry run that the best offer would be launched."""
    offer = provider.offers(Spec())[0]
    order = _order(provider, offer)
    image = provider.catalog.image(offer.image)
    try:
        provider.client(
            offer.scope.place,
            RUN,
            DryRun=True,
            **create_request.request(order, provider.options, image),
        )
    except CallFailed as failed:
        if failed.code != WOULD:
            raise
        yield ok("launch", f"{offer.machine_type} in {offer.place}, {offer.market.value}")
        return
    raise ConfigError("a dry run of a launch was taken for a real one")


def _types(provider: Ec2Provider) -> Iterator[Finding]:
    options = provider.options
    found = [machine_type.name for machine_type in provider.catalog.types()]
    yield ok("instance types", ", ".join(found))
    missing = [name for name in options.instance_types if name not in found]
    if missing:
        yield warning(
            "instance types",
            f"{options.region} has no {', '.join(missing)}",
            f"take it out of providers.{options.name}.instance_types",
        )


def _spot(provider: Ec2Provider) -> Iterator[Finding]:
    """Check that the account has the role that spot needs."""
    if provider.options.spot not in ("prefer", "only"):
        return
    try:
        provider.client(provider.options.region, ROLE, RoleName=_SPOT_ROLE)
    except CallFailed as failed:
        if failed.code == NO_ROLE:
            text = f"the account has no {_SPOT_ROLE}: its first spot VM may be refused"
            yield warning("spot", text, MAKE_SPOT_ROLE)
        else:
            yield warning("spot", str(failed), "allow iam:GetRole to these credentials")
    else:
        yield ok("spot", f"the account has {_SPOT_ROLE}")


def _order(provider: Ec2Provider, offer: Offer) -> Order:
    return Order(
        instance="doctor",
        build="doctor",
        installation=provider.options.installation,
        generation="doctor",
        role=Role.BUILD,
        offer=offer,
        deadline=provider.now() + 60,
        user_data=b"#cloud-config\n{}\n",
        network=Network.OPEN,
    )


def _quotas(provider: Ec2Provider) -> Iterator[Finding]:
    """Check that the account's limit lets the smallest machine of each family run."""
    markets = {Market.ON_DEMAND: 0, Market.SPOT: 1}
    wanted = {offer.market for offer in provider.offers(Spec())}
    families: dict[str, int] = {}
    for machine_type in provider.catalog.types():
        family = "standard" if machine_type.family[:1] in _STANDARD else machine_type.family
        families[family] = min(machine_type.cpus, families.get(family, machine_type.cpus))
    for market in sorted(wanted):
        for family, least in families.items():
            if family in _QUOTAS:
                yield _quota(provider, _QUOTAS[family][markets[market]], market, family, least)


def _quota(provider: Ec2Provider, code: str, market: Market, family: str, least: int) -> Finding:
    text = f"vCPUs at once, {family}, {market.value}"
    for api in (QUOTA, DEFAULT_QUOTA):  # a new account has no quotas of its own
        try:
            answer = provider.client(
                provider.options.region, api, ServiceCode="ec2", QuotaCode=code
            )
            break
        except CallFailed as failed:
            if failed.code != _NO_QUOTA:
                raise
    else:
        return warning("quota", f"{text}: unknown", f"see quota {code} in the console")
    value = float(answer["Quota"]["Value"])
    text = f"{value:g} {text}"
    if value < least:
        return bad("quota", f"{text}: one machine has {least}", f"raise quota {code}")
    return ok("quota", text)


def _clock(provider: Ec2Provider) -> Iterator[Finding]:
    yield of_clock(provider.clock.skew or 0.0, refused=_REFUSED, whose="AWS")


def _metadata(provider: Ec2Provider) -> Iterator[Finding]:
    """Check that a VM's metadata service can be switched off: no step runs before it is."""
    right = provider.permissions.simulate(SEAL)
    if right.may is False:
        yield bad("metadata", right.why, f"allow {SEAL}; no step runs before it is off")
    elif right.may:
        yield ok("metadata", right.why)


def _schedule(provider: Ec2Provider) -> Iterator[Finding]:
    """One is made and removed: whether the role may be passed, nothing else can tell."""
    options = provider.options
    if options.scheduler_role is not None:
        ref = Ref(Scope("ec2", "", options.region), Kind.INSTANCE, NO_INSTANCE)
        partition, end = provider.identity.caller().partition, provider.now() + 3600
        made = deadline_schedules.arm(provider.client, options, partition, ref, "vm-doctor", end)
        deadline_schedules.disarm(provider.client, options.region, made.id)
        yield ok("schedule", f"ends a VM {deadline_schedules.AFTER // 60} min past its deadline")
    else:
        yield _unarmed(provider)


def _unarmed(provider: Ec2Provider) -> Finding:
    return warning(
        "schedule",
        "no schedule ends a VM past its deadline when vmrunner is gone; "
        "the guest's own timer does, unless the build became root",
        f"vmrunner guard install {provider.name}, and its deadline role as "
        f"providers.{provider.name}.scheduler_role",
    )


def unguarded(provider: Ec2Provider) -> Iterator[Finding]:
    """The layers in the account that are missing."""
    if provider.options.scheduler_role is None:
        yield _unarmed(provider)
    yield from (found for found in _guard(provider) if found.level is not Level.OK)


def _guard(provider: Ec2Provider) -> Iterator[Finding]:
    armed = provider.options.scheduler_role is not None
    site = provider.guard().site()
    yield from health.findings(site, provider.name, provider.now, armed=armed)


_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("terminate", _terminate),
    ("sweep", _sweep),
    ("image", _image),
    ("instance types", _types),
    ("spot", _spot),
    ("subnet", _subnets),
    ("security group", _groups),
    ("network none", _no_network),
    ("launch", _dry_run),
    ("quota", _quotas),
    ("clock", _clock),
    ("metadata", _metadata),
    ("schedule", _schedule),
    ("guard", _guard),
)
