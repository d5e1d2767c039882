"""Walls between a pod and the networks: rules of nftables at the node's end of its link, where
nothing in the pod, root or not, reaches them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network


@dataclass(frozen=True)
class Passage:
    """A hole in a wall: `peers` are ranges, each with those that are excepted of it; `ports`
    are protocol, first and last port. None: all."""

    peers: Sequence[tuple[str, Sequence[str]]] | None = None
    ports: Sequence[tuple[str, int, int]] | None = None


@dataclass(frozen=True)
class Wall:
    """A wall around a pod: what may leave it, and what may come in. None: all; empty: nothing.
    Answers pass too, and the node reaches its pods always."""

    leaving: Sequence[Passage] | None = None
    entering: Sequence[Passage] | None = None


def ruleset(walls: Mapping[str, Wall]) -> str:
    """The script for `nft` by which these walls, by the node's link to a pod, replace all that
    there were."""
    chains, out, into = [], [], []
    for link, wall in walls.items():
        if wall.leaving is not None:
            chains.append(_chain(f"leave_{link}", "daddr", wall.leaving))
            out.append(f"iifname {link} jump leave_{link}")
        if wall.entering is not None:
            chains.append(_chain(f"enter_{link}", "saddr", wall.entering))
            into.append(f"oifname {link} jump enter_{link}")
    answers = "ct state established,related accept"
    return "\n".join(
        [
            "table inet walls",
            "delete table inet walls",
            "table inet walls {",
            *chains,
            f"chain input {{ type filter hook input priority 0; {'; '.join([answers, *out])}; }}",
            "chain forward { type filter hook forward priority 0; "
            f"{'; '.join([answers, *out, *into])}; }}",
            "}\n",
        ]
    )


def _chain(name: str, side: str, passages: Sequence[Passage]) -> str:
    rules = [rule for passage in passages for rule in _rules(side, passage)]
    return f"chain {name} {{ {'; '.join([*rules, 'drop'])}; }}"


def _rules(side: str, passage: Passage) -> Iterator[str]:
    """Rules by which what may pass returns to the chain before."""
    peers = [""] if passage.peers is None else [_peer(side, *peer) for peer in passage.peers]
    ports = [""] if passage.ports is None else [_port(*port) for port in passage.ports]
    for peer in peers:
        for port in ports:
            yield " ".join(part for part in (peer, port, "return") if part)


def _peer(side: str, block: str, excepted: Sequence[str]) -> str:
    family = "ip6" if ip_network(block).version == 6 else "ip"
    but = f" {family} {side} != {{ {', '.join(excepted)} }}" if excepted else ""
    # nft has no word for a whole family as a range.
    within = f"{family} {side} {block}" if not block.endswith("/0") else _FAMILY[family]
    return within + but


_FAMILY = {"ip": "meta nfproto ipv4", "ip6": "meta nfproto ipv6"}


def _port(protocol: str, first: int, last: int) -> str:
    return f"{protocol.lower()} dport {first}-{last}"
