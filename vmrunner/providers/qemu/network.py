"""The wall round a VM's network: what its namespace may reach.

QEMU lies in a network namespace of its own. SSH is forwarded into it from a socket in the VM's
directory (`forward.py`). With network `open`, `pasta` carries TCP, UDP and
pings out. nftables inside the namespace, which neither the guest nor QEMU can change, rejects
everything that is not the internet.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from vmrunner.providers.qemu import syscalls
from vmrunner.providers.qemu.command_line import SSH_PORT

#: Of the programs that are started in a jail.
ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}

_PASTA_PID: Final = "/tmp/pasta.pid"  # noqa: S108 - on the jail's own tmpfs

#: Azure's second metadata service, which tells a VM's certificates and settings, and its resolver:
#: an address of the internet's, and only its host's. Local VMs may be on a host in Azure.
WIRE_SERVER: Final = "168.63.129.16/32"
#: Everything that is not the internet (IANA's special-purpose registry), metadata included.
SPECIAL: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    WIRE_SERVER,
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
)

#: Where the proxy of an allow-list listens, in the VM's network: of a range for tests of networks,
#: which no host of the internet has.
PROXY: Final = "198.18.0.1"

_SSH_ONLY: Final = """\
        oifname "lo" ip daddr 127.0.0.1 tcp dport {port} accept
        oifname "lo" ip saddr 127.0.0.1 tcp sport {port} accept
"""
_INTERNET: Final = """\
        ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept
        oifname "lo" tcp flags rst accept comment "our own rejections, below"
        oifname "lo" meta l4proto icmp accept
        ip daddr @denied meta l4proto tcp reject with tcp reset
        ip daddr @denied reject with icmpx type admin-prohibited
        meta nfproto ipv4 meta l4proto {{ tcp, udp, icmp }} accept
"""
_PROXY_ALONE: Final = """\
        ip daddr {proxy} tcp dport {{ 53, {ports} }} accept
        ip saddr {proxy} tcp sport {{ 53, {ports} }} accept
        ip daddr {proxy} udp dport 53 accept
        ip saddr {proxy} udp sport 53 accept
        oifname "lo" tcp flags rst accept comment "our own rejections, below"
        oifname "lo" icmp type destination-unreachable accept
        meta l4proto tcp reject with tcp reset
        reject with icmpx type admin-prohibited
"""
_RULES: Final = """\
table inet vmrunner {{
    set denied {{
        type ipv4_addr; flags interval; auto-merge
        elements = {{ {denied} }}
    }}
    chain output {{
        type filter hook output priority filter; policy drop;
{rules}    }}
}}
"""


def rules(*, resolver: str | None, host: Iterable[str]) -> str:
    """The namespace's nftables rules. `resolver`: whom it asks for names, wherever that is; None:
    it reaches nothing at all. `host`: the prefixes that the host answers for."""
    text = _SSH_ONLY.format(port=SSH_PORT)
    if resolver is not None:
        text += _INTERNET.format(resolver=resolver)
    denied = ", ".join(_merged([*SPECIAL, *host]))
    return _RULES.format(denied=denied, rules=text)


def proxy_rules(ports: Iterable[int]) -> str:
    """The rules of a network that reaches the proxy of an allow-list and nothing else."""
    text = _SSH_ONLY.format(port=SSH_PORT)
    text += _PROXY_ALONE.format(proxy=PROXY, ports=", ".join(map(str, sorted(ports))))
    return _RULES.format(denied=", ".join(SPECIAL), rules=text)


def load(program: str, rules: str, *, space: int | None = None) -> None:
    """Let the kernel have the rules, for the network namespace `space` or our own. Raises
    OSError."""
    own_namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if space is not None:
            syscalls.enter(space, syscalls.NEWNET)
        done = subprocess.run(
            [program, "-f", "-"],
            input=rules.encode(),
            env=ENVIRONMENT,
            capture_output=True,
            timeout=20,
            check=False,
        )
    finally:
        if space is not None:
            syscalls.enter(own_namespace, syscalls.NEWNET)
        os.close(own_namespace)
    if done.returncode:
        raise OSError(f"nft: {done.stderr.decode(errors='replace').strip()[:500]}")


def attach(program: str, space: str) -> int:
    """Join a network namespace to ours. Returns the pid of pasta, which forwards already."""
    done = subprocess.run(
        [*pasta(program, namespace=space), "--no-netns-quit", "--pid", _PASTA_PID],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
    )
    if done.returncode:
        raise OSError(f"pasta: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return int(Path(_PASTA_PID).read_text())


def deny(prefixes: Iterable[str]) -> str:
    """Rules that deny more, such as an address that the host got while the VM ran."""
    return f"add element inet vmrunner denied {{ {', '.join(prefixes)} }}\n"


def pasta(program: str, *, namespace: str) -> list[str]:
    """The network helper's command line: out, and nothing in, nor from one loopback to the other
    (its defaults forward both). IPv4 only: IPv6 is off in the guest, here and in the rules."""
    return [
        program,
        *("--quiet", "--ipv4-only", "--config-net", "--no-map-gw", "--netns-only"),
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--netns", namespace),
    ]


def host_prefixes() -> tuple[str, ...]:
    """Return every IPv4 prefix that this network namespace answers for itself, loopback left out:
    its local routing table, so that addresses without an interface count too."""
    found: set[str] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        # RTM_GETROUTE with NLM_F_REQUEST | NLM_F_DUMP, then an rtmsg for AF_INET.
        body = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        link.send(struct.pack("=IHHII", 16 + len(body), 26, 0x301, 1, 0) + body)
        while True:
            data = link.recv(1 << 16)
            done = False
            for kind, message in _messages(data):
                if kind in (2, 3):  # an error, or the end
                    done = True
                elif prefix := _local_prefix(message):
                    found.add(prefix)
            if done:
                return tuple(sorted(found))


def _messages(data: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16:
            return
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _local_prefix(message: bytes) -> str | None:
    """The destination of a route in the local table (255) of type local (2) or broadcast (3)."""
    length, table, kind = message[1], message[4], message[7]
    if table != 255 or kind not in (2, 3):
        return None
    at = 12
    while at + 4 <= len(message):
        size, attribute = struct.unpack_from("=HH", message, at)
        if size < 4:
            return None
        if attribute == 1:  # RTA_DST
            network = ipaddress.IPv4Network((message[at + 4 : at + 8], length), strict=False)
            return None if network.is_loopback else str(network)
        at += (size + 3) & ~3
    return None


def _merged(prefixes: Sequence[str]) -> list[str]:
    """Return the prefixes without the parts that others cover: nftables refuses overlapping
    elements."""
    return [str(n) for n in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, prefixes))]
