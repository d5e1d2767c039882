"""`doctor` for Compute Engine: the right to delete first, then what a launch needs. Each finding
with its fix; one that fails hinders no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from vmrunner.lib import resources
from vmrunner.model import Finding, Kind, Level, Market, Ref, Scope, Spec
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
)
from vmrunner.providers.common.permissions import Right
from vmrunner.providers.gce import guard
from vmrunner.providers.gce.client import FIREWALLS, INSTANCES, REGION, SUBNETS, pb
from vmrunner.providers.gce.isolation import holes, way_out
from vmrunner.providers.gce.labels import label
from vmrunner.providers.gce.permissions import ACTION
from vmrunner.providers.gce.resources import last

if TYPE_CHECKING:
    from vmrunner.providers.gce.provider import GceProvider

#: Credentials that are signed an hour off are refused.
_REFUSED: Final = 3000.0

#: A region's quotas, by market. New families have one of their own, which is asked for beside.
_CPUS: Final = {Market.ON_DEMAND: "CPUS", Market.SPOT: "PREEMPTIBLE_CPUS"}

Check = Callable[["GceProvider"], Iterator[Finding]]


def check(provider: GceProvider) -> list[Finding]:
    """Run all checks. Whether we are let in comes first: without that nothing else can be told."""
    try:
        project = provider.identity.project()
    except CallFailed as failed:
        return [of_failure("project", failed.error, _LOOK)]
    where = ", ".join(provider.options.every_zone) or "no zone"
    found = [ok("project", f"{project}, in {where}")]
    checks = {name: partial(part, provider) for name, part in _CHECKS}
    return [*found, *each(checks, _LOOK)]


_LOOK: Final = "see docs/configuration.md, kind gce"


def _delete(provider: GceProvider) -> Iterator[Finding]:
    """Check the right to delete on a VM of ours, if there is one; Compute Engine tells of no
    other."""
    own_label = f'labels.{label("installation")}="{provider.options.installation}"'
    answer = pb(provider.client(INSTANCES, filter=own_label, max_results=1))
    for zone, part in answer.items.items():
        for item in part.instances:
            scope = Scope("gce", provider.identity.project(), last(zone))
            right = provider.permissions.ask(Ref(scope, Kind.INSTANCE, item.name))
            provider.permissions.learn(right)
            yield _of_right(right)
            return
    yield _of_right(Right(may=None, why="no VM of ours is there to be asked about"))


def _of_right(right: Right) -> Finding:
    tell = f"see that these credentials have {ACTION}: {resources.path('deploy')}/gcp/role.yaml"
    return of_right("delete", right, allow=f"allow {ACTION}", tell=tell)


def _sweep(provider: GceProvider) -> Iterator[Finding]:
    role = resources.path("deploy") / "gcp/role.yaml"
    yield from of_holes(provider.sweep(), f"see that these credentials have the role: {role}")


def _image(provider: GceProvider) -> Iterator[Finding]:
    image = provider.catalog.image()
    yield ok("image", f"{image.id} {image.architecture}".rstrip())


def _types(provider: GceProvider) -> Iterator[Finding]:
    provider.options.check_launch()
    for zone in provider.options.zones:
        names = [machine_type.name for machine_type in provider.catalog.types(zone)]
        missing = [name for name in provider.options.machine_types if name not in names]
        if missing:
            yield Finding(
                check="machine types",
                level=Level.WARNING if names else Level.ERROR,
                message=f"{zone} has no {', '.join(missing)}",
                fix=f"providers.{provider.name}.machine_types, or another zone",
            )
        else:
            yield ok("machine types", f"{zone}: {', '.join(names)}")


def _firewall(provider: GceProvider) -> Iterator[Finding]:
    provider.options.check_launch()
    options = provider.options
    own_ranges: list[str] = []
    network = last(options.network)
    for region in dict.fromkeys(zone.rpartition("-")[0] for zone in options.zones):
        for subnet in pb(provider.client(SUBNETS, region=region)).items:
            named = options.subnetwork is not None
            wanted = last(options.subnetwork or "") == subnet.name
            if wanted if named else last(subnet.network) == network:
                own_ranges.append(subnet.ip_cidr_range)
                network = last(subnet.network)
    if not own_ranges:
        field = "subnetwork" if options.subnetwork else "network"
        value = options.subnetwork or options.network
        yield bad(
            "firewall",
            f"providers.{options.name}.{field}: {value} has no range in the configured zones",
            f"correct providers.{options.name}.{field}",
        )
        return
    rules = [r for r in pb(provider.client(FIREWALLS)).items if last(r.network) == network]
    public = options.address == "public"
    tags, account = options.network_tags, options.service_account
    found = list(holes(rules, own_ranges, tags, account, public=public))
    yield from found
    if not found:
        yield ok("firewall", f"network {network}: builds do not reach each other")
    yield from _no_network(provider, rules, own_ranges)


def _no_network(
    provider: GceProvider, rules: list[Any], own_ranges: list[str]
) -> Iterator[Finding]:
    """Check that a VM of `network: none` gets nowhere, not even as root."""
    options = provider.options
    tags, account = options.network_tags_none, options.service_account
    if not tags:
        yield of_no_wall(provider.name, "network_tags_none")
        return
    way = way_out(rules, tags, account)
    found = [] if way is None else [way]
    beside = holes(rules, own_ranges, tags, account, public=options.address == "public")
    found += [replace(hole, check="network none") for hole in beside]
    yield from found
    if not found:
        names = "but names, which the metadata server resolves: no rule closes the way to it"
        yield ok("network none", f"{', '.join(tags)}: nothing goes out {names}")


def _offers(provider: GceProvider) -> Iterator[Finding]:
    offer = provider.offers(Spec())[0]
    yield ok("launch", f"{offer.machine_type} in {offer.place}, {offer.market.value}")


def _quotas(provider: GceProvider) -> Iterator[Finding]:
    """Check that each region's limit lets the best offer run."""
    offers = provider.offers(Spec())
    for region in dict.fromkeys(offer.place.rpartition("-")[0] for offer in offers):
        quotas = {q.metric: q for q in pb(provider.client(REGION, region=region)).quotas}
        in_region = [offer for offer in offers if offer.place.startswith(f"{region}-")]
        for market in dict.fromkeys(offer.market for offer in in_region):
            least = min(offer.cpus for offer in in_region if offer.market is market)
            for metric, needed in (
                (_CPUS[market], least),
                ("INSTANCES", 1),
                ("IN_USE_ADDRESSES", 1),
            ):
                quota = quotas.get(metric)
                if quota is None:
                    continue
                available = quota.limit - quota.usage
                text = f"{region}: {metric} {quota.usage:g} of {quota.limit:g}"
                if available < needed:
                    yield bad("quota", f"{text}: one VM needs {needed}", f"raise {metric}")
                else:
                    yield ok("quota", text)


def _clock(provider: GceProvider) -> Iterator[Finding]:
    yield of_clock(provider.clock.skew or 0.0, refused=_REFUSED, whose="Google")


def _guard(provider: GceProvider) -> Iterator[Finding]:
    yield from guard.findings(provider.options, provider.identity.project(), provider.clock)


_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("delete", _delete),
    ("sweep", _sweep),
    ("image", _image),
    ("machine types", _types),
    ("firewall", _firewall),
    ("launch", _offers),
    ("quota", _quotas),
    ("clock", _clock),
    ("guard", _guard),
)
