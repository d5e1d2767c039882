"""Isolation of builds from each other, by network security groups. Their rules go by priority, and
Azure's own last ones let in the whole network; a packet must pass the subnet's group and the VM's
own. Builds with public addresses reach those of each other too, and then come from the internet.
Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from vmrunner.model import Finding, Level
from vmrunner.providers.azure.client import Answer, part

SSH: Final = 22
#: Words for sources among which builds are.
_EVERYONE: Final = frozenset({"*", "any", "virtualnetwork"})
#: Such words where builds come by their public addresses, which are Azure's: `AzureCloud.REGION`.
_INTERNET: Final = frozenset({"*", "any", "internet", "0.0.0.0/0", "azurecloud"})
#: Words for everything, wherever it lies.
_ALL: Final = frozenset({"*", "any", "0.0.0.0/0"})
#: The service tag of the resolver at 168.63.129.16, to which no rule about addresses applies.
_RESOLVER: Final = "AzurePlatformDNS"
_TO: Final = "destinationAddressPrefix"
_ALL_PORTS: Final = frozenset({"*", "0-65535"})
#: Its own last rules, in which the network may reach itself, where an answer does not show them.
_BY_AZURE: Final = {
    "name": "AllowVnetInBound",
    "properties": {
        "access": "Allow",
        "direction": "Inbound",
        "priority": 65000,
        "protocol": "*",
        "sourceAddressPrefix": "VirtualNetwork",
        "destinationPortRange": "*",
    },
}

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def holes(
    groups: Sequence[Answer], own_ranges: Sequence[str], *, public: bool
) -> Iterator[Finding]:
    """Yield what is wrong with these security groups of the builds' subnet and VMs. `own_ranges`:
    ranges that builds have addresses in; `public`: they have public ones too."""
    nets = [ipaddress.ip_network(text) for text in own_ranges]
    lets_in = [_opening(g, partial(_meets, nets), partial(_covers_all, nets)) for g in groups]
    outside = [_opening(g, _is_internet, _is_internet) for g in groups]
    if not groups or all(lets_in):
        yield _bad(
            f"builds reach each other: {_names(lets_in) or 'no security group'}",
            "a rule with a lower number than all that let builds in: deny all from the subnet's "
            "own range to *",
        )
    elif public and all(outside):
        yield _bad(
            f"builds reach each other by their public addresses: {_names(outside)}",
            "let in only where vmrunner runs, or give builds no public addresses",
        )
    for group in groups:
        if not any(_allows(rule) and _covers(rule, SSH) for rule in _inbound(group)[:-1]):
            yield _bad(
                f"{group.get('name')} lets nothing in to port {SSH}",
                "a rule that lets in SSH from where vmrunner runs, and nothing else",
            )


def ways_out(group: Answer) -> Iterator[Finding]:
    """Yield what is wrong with the security group of `network: none`: by what its VMs get out, and
    whether they reach Azure's own resolver, which only a rule about that closes. Answers to
    connections that were let in need no rule."""
    first = next((r for r in _outbound(group) if _allows(r) or _denies_everything(r)), None)
    if first is None or _allows(first):
        way = "no rule denies it" if first is None else f"rule {first.get('name')}"
        yield replace(
            _bad(
                f"{group.get('name')} lets builds of network none out: {way}",
                "a rule with the lowest number of the outbound ones: deny all from * to *",
            ),
            check="network none",
        )
    resolver = [r for r in _outbound(group) if _RESOLVER in _values(r, _TO, "es")]
    if not resolver or _allows(resolver[0]) or not _is_of_all_traffic(resolver[0]):
        yield replace(
            _bad(
                f"{group.get('name')} leaves Azure's own resolver: names that a build asks for "
                "go out",
                f"a rule of the outbound ones that denies all to the service tag {_RESOLVER}",
            ),
            level=Level.WARNING,
            check="network none",
        )


def _outbound(group: Answer) -> list[Answer]:
    """Return its own rules for what goes out, in order; Azure's, which come after them, let all
    out."""
    rules = part(group, "properties", "securityRules") or ()
    outbound = [rule for rule in rules if str(part(rule, "properties", "direction")) == "Outbound"]
    return sorted(outbound, key=lambda rule: int(part(rule, "properties", "priority") or 0))


def _denies_everything(rule: Answer) -> bool:
    sources = {prefix.lower() for prefix in _values(rule, "sourceAddressPrefix", "es")} or {"*"}
    targets = {prefix.lower() for prefix in _values(rule, _TO, "es")} or {"*"}
    return _denies_all(rule) and bool(sources & _ALL) and bool(targets & _ALL)


def _names(rules: Sequence[Answer | None]) -> str:
    return ", ".join(str(rule["name"]) for rule in rules if rule)


def _opening(
    group: Answer, meets: Callable[[Answer], bool], covers: Callable[[Answer], bool]
) -> Answer | None:
    """Return the first rule that lets builds in; None: one that denies them all comes first.
    `meets`: builds are among a rule's sources; `covers`: all of them are."""
    for rule in _inbound(group):
        if _allows(rule):
            if meets(rule):
                return rule
        elif _denies_all(rule) and covers(rule):
            return None
    return None


def _inbound(group: Answer) -> list[Answer]:
    """Return its rules for what comes in, in order; the network's own is the last that counts."""
    rules = [*(part(group, "properties", "securityRules") or ())]
    inbound = [rule for rule in rules if str(part(rule, "properties", "direction")) == "Inbound"]
    inbound.sort(key=lambda rule: int(part(rule, "properties", "priority") or 0))
    return [*inbound, _BY_AZURE]


def _allows(rule: Answer) -> bool:
    return str(part(rule, "properties", "access")) == "Allow"


def _is_internet(rule: Answer) -> bool:
    """True if the rule is about all public addresses, or all of Azure's."""
    sources = (source.lower() for source in _values(rule, "sourceAddressPrefix", "es"))
    return any(source in _INTERNET or source.startswith("azurecloud.") for source in sources)


def _meets(own_ranges: Sequence[_Network], rule: Answer) -> bool:
    """True if builds are among those that the rule is about."""
    return any(
        source.lower() in _EVERYONE or _overlaps(source, own_ranges)
        for source in _values(rule, "sourceAddressPrefix", "es")
    )


def _overlaps(source: str, own_ranges: Sequence[_Network]) -> bool:
    try:
        network = ipaddress.ip_network(source, strict=False)
    except ValueError:
        return False  # a service of Azure's, in which no build is
    return any(network.version == own.version and network.overlaps(own) for own in own_ranges)


def _denies_all(rule: Answer) -> bool:
    """True if what it denies it denies whole, wherever it goes."""
    targets = {prefix.lower() for prefix in _values(rule, _TO, "es")} or {"*"}
    return _is_of_all_traffic(rule) and bool(targets & _EVERYONE)


def _is_of_all_traffic(rule: Answer) -> bool:
    """True if it names neither a protocol nor ports."""
    ports = set(_values(rule, "destinationPortRange", "s"))
    return str(part(rule, "properties", "protocol")) == "*" and bool(ports & _ALL_PORTS)


def _covers_all(own_ranges: Sequence[_Network], rule: Answer) -> bool:
    """True if all that builds may come from is what the rule is about."""
    sources = _values(rule, "sourceAddressPrefix", "es")
    return any(source.lower() in _EVERYONE for source in sources) or all(
        any(_within(own, source) for source in sources) for own in own_ranges
    )


def _within(own: _Network, source: str) -> bool:
    try:
        network: Any = ipaddress.ip_network(source, strict=False)
    except ValueError:
        return False
    return bool(network.version == own.version and own.subnet_of(network))


def _covers(rule: Answer, port: int) -> bool:
    if str(part(rule, "properties", "protocol")).lower() not in ("*", "tcp"):
        return False
    for ports in _values(rule, "destinationPortRange", "s"):
        low, _, high = ports.partition("-")
        if ports == "*" or int(low) <= port <= int(high or low):
            return True
    return False


def _values(rule: Answer, name: str, plural: str) -> list[str]:
    """Values of a field that may be given as one or as several."""
    several = part(rule, "properties", name + plural) or ()
    single = part(rule, "properties", name)
    return [*map(str, several), *([str(single)] if single else [])]


def _bad(message: str, fix: str) -> Finding:
    return Finding(check="network", level=Level.ERROR, message=message, fix=fix)
