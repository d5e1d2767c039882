"""Isolation of builds from each other, by security groups. A security group cannot deny: what it
lets in from everywhere, it lets in from the builds beside. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from vmrunner.model import Finding, Level

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2

SSH: Final = 22

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def holes(
    groups: Sequence[ec2.SecurityGroupTypeDef], subnets: Sequence[ec2.SubnetTypeDef]
) -> Iterator[Finding]:
    """Yield what is wrong with these security groups, for builds in these subnets."""
    group_ids = {group["GroupId"] for group in groups}
    own_ranges = [network for subnet in subnets for network in _networks(subnet)]
    lets_in = False
    for group in groups:
        for rule in group.get("IpPermissions", ()):
            lets_in = lets_in or _covers(rule, SSH)
            for source in _sources(rule, group_ids, own_ranges):
                yield Finding(
                    check="security group",
                    level=Level.ERROR,
                    message=f"{group['GroupId']} lets builds reach each other: "
                    f"{_ports(rule)} from {source}",
                    fix="let in SSH only from where vmrunner runs: from an address outside the "
                    "builds' subnets, or from a security group that no build has",
                )
            for prefix in rule.get("PrefixListIds", ()):
                yield Finding(
                    check="security group",
                    level=Level.WARNING,
                    message=f"{group['GroupId']} lets in prefix list {prefix['PrefixListId']}, "
                    "which is not looked into",
                    fix="see that no subnet of the builds is in it",
                )
    if not lets_in:
        yield Finding(
            check="security group",
            level=Level.ERROR,
            message=f"{', '.join(sorted(group_ids))}: nothing is let in to port {SSH}",
            fix="let in SSH from where vmrunner runs, and nothing else",
        )


def ways_out(groups: Sequence[ec2.SecurityGroupTypeDef]) -> Iterator[Finding]:
    """Yield each rule by which these groups of `network: none` let a VM out. A new group has one
    for everything; answers to connections that were let in need none."""
    for group in groups:
        for rule in group.get("IpPermissionsEgress", ()):
            ranges = [entry["CidrIp"] for entry in rule.get("IpRanges", ())]
            ranges += [entry["CidrIpv6"] for entry in rule.get("Ipv6Ranges", ())]
            ranges += [entry["PrefixListId"] for entry in rule.get("PrefixListIds", ())]
            ranges += [
                entry.get("GroupId", "a group") for entry in rule.get("UserIdGroupPairs", ())
            ]
            yield Finding(
                check="network none",
                level=Level.ERROR,
                message=f"{group['GroupId']} lets builds of network none out: {_ports(rule)} to "
                f"{', '.join(ranges)}",
                fix=f"aws ec2 revoke-security-group-egress --group-id {group['GroupId']} …: it "
                "needs no outbound rule at all",
            )


def _sources(
    rule: ec2.IpPermissionOutputTypeDef, group_ids: set[str], own_ranges: Sequence[_Network]
) -> Iterator[str]:
    """Yield where builds are among those that a rule lets in."""
    for pair in rule.get("UserIdGroupPairs", ()):
        if pair.get("GroupId") in group_ids:
            yield f"{pair['GroupId']}, which the builds have"
    ranges = [entry["CidrIp"] for entry in rule.get("IpRanges", ())]
    ranges += [entry["CidrIpv6"] for entry in rule.get("Ipv6Ranges", ())]
    for text in ranges:
        network = ipaddress.ip_network(text, strict=False)
        if any(network.version == own.version and network.overlaps(own) for own in own_ranges):
            yield f"{network}, in which the builds are"


def _networks(subnet: ec2.SubnetTypeDef) -> Iterator[_Network]:
    if subnet.get("CidrBlock"):
        yield ipaddress.ip_network(subnet["CidrBlock"])
    for association in subnet.get("Ipv6CidrBlockAssociationSet", ()):
        if association.get("Ipv6CidrBlock"):
            yield ipaddress.ip_network(association["Ipv6CidrBlock"])


def _covers(rule: ec2.IpPermissionOutputTypeDef, port: int) -> bool:
    if rule.get("IpProtocol") == "-1":
        return True
    first: Any = rule.get("FromPort", -1)
    last: Any = rule.get("ToPort", -1)
    return rule.get("IpProtocol") == "tcp" and int(first) <= port <= int(last)


def _ports(rule: ec2.IpPermissionOutputTypeDef) -> str:
    if rule.get("IpProtocol") == "-1":
        return "everything"
    first, last = rule.get("FromPort"), rule.get("ToPort")
    ports = f"{first}" if first == last else f"{first}-{last}"
    return f"{rule.get('IpProtocol')} {ports}"
