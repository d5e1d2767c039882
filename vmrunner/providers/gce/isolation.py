"""Isolation of builds from each other, by firewall rules. Firewall rules go by priority; a rule
that lets in an address which a build has lets builds in, unless one that denies it comes first.
Builds with public addresses reach those of each other too, and then come from these. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vmrunner.model import Finding, Level

SSH: Final = 22

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_WORLD: Final = ipaddress.ip_network("0.0.0.0/0")  # a build has no other public address


def holes(
    rules: Sequence[Any],
    own_ranges: Sequence[str],
    tags: Sequence[str],
    account: str | None,
    *,
    public: bool,
) -> Iterator[Finding]:
    """Yield what is wrong with these ingress rules of the builds' network. `own_ranges`: ranges
    that builds have addresses in; `tags`, `account`: what rules may know builds by; `public`: they
    have public addresses too."""
    nets = [ipaddress.ip_network(text) for text in own_ranges]
    relevant = sorted(
        (rule for rule in rules if _concerns(rule, tags, account)),
        key=lambda rule: (int(rule.priority), bool(list(rule.allowed))),  # a tie is denied
    )
    denied: list[Any] = []
    lets_in = False
    for rule in relevant:
        if not list(rule.allowed):
            denied.append(rule)
            continue
        lets_in = lets_in or any(_covers(entry, SSH) for entry in rule.allowed)
        source = _source(rule, nets, tags, account)
        if not source or any(_shadows(denial, nets, tags) for denial in denied):
            world = public and str(_WORLD) in rule.source_ranges
            open_to_all = world and not any(_shadows(denial, [_WORLD], ()) for denial in denied)
            source = f"{_WORLD}, by their public addresses" if open_to_all else ""
        if source:
            yield Finding(
                check="firewall",
                level=Level.ERROR,
                message=f"rule {rule.name} lets builds reach each other: "
                f"{_ports(rule)} from {source}",
                fix="give builds a network of their own that lets in SSH from where vmrunner runs "
                "alone, or a rule before this one that denies all from the builds' own ranges",
            )
    if not lets_in:
        yield Finding(
            check="firewall",
            level=Level.ERROR,
            message=f"nothing is let in to port {SSH}",
            fix="a rule that lets in SSH from where vmrunner runs, and nothing else",
        )


def way_out(rules: Sequence[Any], tags: Sequence[str], account: str | None) -> Finding | None:
    """Finding of the way out of VMs with these tags, those of `network: none`; None: there is none.
    Where no rule says otherwise Google lets everything out. Answers to connections that were let in
    need none."""
    relevant = sorted(
        (rule for rule in rules if _concerns(rule, tags, account, "EGRESS")),
        key=lambda rule: (int(rule.priority), bool(list(rule.allowed))),  # a tie is denied
    )
    first = next((rule for rule in relevant if list(rule.allowed) or _denies_all(rule)), None)
    if first is not None and not list(first.allowed):
        return None
    ways = "no rule denies it" if first is None else f"rule {first.name}: {_ports(first)}"
    return Finding(
        check="network none",
        level=Level.ERROR,
        message=f"VMs with the tags {', '.join(tags)} get out: {ways}",
        fix="gcloud compute firewall-rules create … --direction egress --action deny --rules all "
        f"--destination-ranges 0.0.0.0/0 --target-tags {tags[0]} --priority 0",
    )


def _denies_all(rule: Any) -> bool:
    """True if the rule denies everything to everywhere."""
    whole = any(entry.I_p_protocol == "all" for entry in rule.denied)
    return whole and str(_WORLD) in list(rule.destination_ranges)


def _concerns(
    rule: Any, tags: Sequence[str], account: str | None, direction: str = "INGRESS"
) -> bool:
    """True if the rule holds for builds as targets."""
    if rule.disabled or rule.direction != direction:
        return False
    accounts = list(rule.target_service_accounts)
    if accounts:
        return account in accounts
    named = list(rule.target_tags)
    return not named or bool(set(named) & set(tags))


def _source(
    rule: Any, own_ranges: Sequence[_Network], tags: Sequence[str], account: str | None
) -> str:
    """Source among those that the rule lets in, in which builds are; "": none."""
    named = set(rule.source_tags) & set(tags)
    if named:
        return f"tag {min(named)}, which builds have"
    if account and account in list(rule.source_service_accounts):
        return f"{account}, which builds are"
    for text in rule.source_ranges:
        network = ipaddress.ip_network(text, strict=False)
        if any(network.version == own.version and network.overlaps(own) for own in own_ranges):
            return f"{network}, in which builds are"
    return ""


def _shadows(rule: Any, own_ranges: Sequence[_Network], tags: Sequence[str]) -> bool:
    """True if the rule denies everything to all that builds may come from."""
    if not any(entry.I_p_protocol == "all" for entry in rule.denied):
        return False
    if tags and set(tags) & set(rule.source_tags):
        return True
    ranges = [ipaddress.ip_network(text, strict=False) for text in rule.source_ranges]
    return all(any(_within(own, net) for net in ranges) for own in own_ranges)


def _within(own: _Network, net: _Network) -> bool:
    if isinstance(own, ipaddress.IPv4Network):
        return isinstance(net, ipaddress.IPv4Network) and own.subnet_of(net)
    return isinstance(net, ipaddress.IPv6Network) and own.subnet_of(net)


def _covers(entry: Any, port: int) -> bool:
    if entry.I_p_protocol == "all":
        return True
    if entry.I_p_protocol not in ("tcp", "6"):
        return False
    ranges = [text.partition("-") for text in entry.ports]
    return not ranges or any(int(low) <= port <= int(high or low) for low, _, high in ranges)


def _ports(rule: Any) -> str:
    return ", ".join(" ".join([entry.I_p_protocol, *entry.ports]).strip() for entry in rule.allowed)
