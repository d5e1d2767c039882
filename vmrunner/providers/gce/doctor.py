"""`doctor` for Compute Engine: the right to delete first, then what a launch needs. Each finding
with its fix; one that fails hinders no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError, ProviderError
from vmrunner.model import Finding, Kind, Level, Market, Ref, Spec
from vmrunner.providers.common.failure import CallFailed
from vmrunner.providers.gce import guard
from vmrunner.providers.gce.calls import FIREWALLS, INSTANCES, REGION, SUBNETS, pb
from vmrunner.providers.gce.kinds import last
from vmrunner.providers.gce.labels import label
from vmrunner.providers.gce.rights import ACTION
from vmrunner.providers.gce.walls import holes

if TYPE_CHECKING:
    from vmrunner.providers.gce.provider import GceProvider

#: Credentials that are signed an hour off are refused; five minutes are a warning's.
_SKEWED, _REFUSED = 60.0, 3000.0

#: A region's quotas, by market. New families have one of their own, which is asked for beside.
_CPUS: Final = {Market.ON_DEMAND: "CPUS", Market.SPOT: "PREEMPTIBLE_CPUS"}

Check = Callable[["GceProvider"], Iterator[Finding]]


def check(provider: GceProvider) -> list[Finding]:
    """All of it. Whether we are let in comes first: without that nothing else can be told."""
    try:
        project = provider.identity.project()
    except CallFailed as failed:
        return [_bad("project", str(failed.error.args[0]), failed.error.hint or _LOOK)]
    where = ", ".join(provider.options.every_zone) or "no zone"
    found = [_ok("project", f"{project}, in {where}")]
    for name, part in _CHECKS:
        try:
            found += part(provider)
        except CallFailed as failed:
            found.append(_bad(name, str(failed.error.args[0]), failed.error.hint or _LOOK))
        except (ConfigError, ProviderError) as error:
            found.append(_bad(name, str(error.args[0]), error.hint or _LOOK))
    return found


_LOOK: Final = "see docs/configuration.md, kind gce"


def _delete(provider: GceProvider) -> Iterator[Finding]:
    """Of a VM of ours, if there is one; Compute Engine tells of no other."""
    mine = f"labels.{label('installation')}={provider.options.installation}"
    answer = pb(provider.calls(INSTANCES, filter=mine, max_results=1))
    for zone, part in answer.items.items():
        for item in part.instances:
            scope = next(iter(provider.scopes))._replace(place=last(zone))
            right = provider.rights.ask(Ref(scope, Kind.INSTANCE, item.name))
            provider.rights.learn(right)
            if right.may is False:
                yield _bad("delete", right.why, f"allow {ACTION}; nothing is launched before")
            elif right.may:
                yield _ok("delete", right.why)
            return
    yield Finding(
        check="delete",
        level=Level.WARNING,
        message="it cannot be told before the first launch: no VM of ours is there to ask about",
        fix=f"see that these credentials have {ACTION}: deploy/gcp/role.yaml",
    )


def _image(provider: GceProvider) -> Iterator[Finding]:
    image = provider.places.image()
    yield _ok("image", f"{image.id} {image.architecture}".rstrip())


def _types(provider: GceProvider) -> Iterator[Finding]:
    provider.options.check_launch()
    for zone in provider.options.zones:
        names = [one.name for one in provider.places.types(zone)]
        missing = [name for name in provider.options.machine_types if name not in names]
        if missing:
            yield Finding(
                check="machine types",
                level=Level.WARNING if names else Level.ERROR,
                message=f"{zone} has no {', '.join(missing)}",
                fix=f"providers.{provider.name}.machine_types, or another zone",
            )
        else:
            yield _ok("machine types", f"{zone}: {', '.join(names)}")


def _firewall(provider: GceProvider) -> Iterator[Finding]:
    provider.options.check_launch()
    options = provider.options
    homes: list[str] = []
    network = last(options.network)
    for region in dict.fromkeys(zone.rpartition("-")[0] for zone in options.zones):
        for subnet in pb(provider.calls(SUBNETS, region=region)).items:
            named = options.subnetwork is not None
            wanted = last(options.subnetwork or "") == subnet.name
            if wanted if named else last(subnet.network) == network:
                homes.append(subnet.ip_cidr_range)
                network = last(subnet.network)
    if not homes:
        field = "subnetwork" if options.subnetwork else "network"
        value = options.subnetwork or options.network
        yield _bad(
            "firewall",
            f"providers.{options.name}.{field}: {value} has no range in the configured zones",
            f"correct providers.{options.name}.{field}",
        )
        return
    rules = [r for r in pb(provider.calls(FIREWALLS)).items if last(r.network) == network]
    found = list(holes(rules, homes, options.network_tags, options.service_account))
    yield from found
    if not found:
        yield _ok("firewall", f"network {network}: builds do not reach each other")


def _offers(provider: GceProvider) -> Iterator[Finding]:
    offer = provider.offers(Spec())[0]
    yield _ok("launch", f"{offer.machine_type} in {offer.place}, {offer.market.value}")


def _quotas(provider: GceProvider) -> Iterator[Finding]:
    """Does each region's limit let the best offer run?"""
    offers = provider.offers(Spec())
    for region in dict.fromkeys(offer.place.rpartition("-")[0] for offer in offers):
        quotas = {q.metric: q for q in pb(provider.calls(REGION, region=region)).quotas}
        here = [offer for offer in offers if offer.place.startswith(f"{region}-")]
        for market in dict.fromkeys(offer.market for offer in here):
            least = min(offer.cpus for offer in here if offer.market is market)
            for metric, needed in (
                (_CPUS[market], least),
                ("INSTANCES", 1),
                ("IN_USE_ADDRESSES", 1),
            ):
                quota = quotas.get(metric)
                if quota is None:
                    continue
                left = quota.limit - quota.usage
                text = f"{region}: {metric} {quota.usage:g} of {quota.limit:g}"
                if left < needed:
                    yield _bad("quota", f"{text}: one VM needs {needed}", f"raise {metric}")
                else:
                    yield _ok("quota", text)


def _clock(provider: GceProvider) -> Iterator[Finding]:
    skew = provider.clock.skew or 0.0
    text = f"this host's is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) > _REFUSED:
        yield _bad("clock", f"{text}: Google refuses what it signs", "set it: NTP")
    elif abs(skew) > _SKEWED:
        yield Finding(check="clock", level=Level.WARNING, message=text, fix="set it: NTP")
    else:
        yield _ok("clock", text)


def _guard(provider: GceProvider) -> Iterator[Finding]:
    yield from guard.findings(provider.options, provider.identity.project(), provider.now())


_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("delete", _delete),
    ("image", _image),
    ("machine types", _types),
    ("firewall", _firewall),
    ("launch", _offers),
    ("quota", _quotas),
    ("clock", _clock),
    ("guard", _guard),
)


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def _bad(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, level=Level.ERROR, message=message, fix=fix)
