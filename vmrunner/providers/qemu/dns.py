"""The resolver of a build with `--network open`: one of the internet, never the host's own, which
is a service of the host's and knows the names of its network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from vmrunner.errors import ConfigError
from vmrunner.providers.qemu import network

#: Where nothing else can be asked: Quad9.
PUBLIC: Final = "9.9.9.9"
_AUTO: Final = "auto"
_LOCAL: Final = Path("/etc/resolv.conf")
#: Those that systemd-resolved asks itself; the other file names only its own address then.
_RESOLVED: Final = Path("/run/systemd/resolve/resolv.conf")


class Resolver(NamedTuple):
    """The choice, and why."""

    address: str
    why: str


def choose(
    requested: str, own: Iterable[str], files: Iterable[Path] = (_LOCAL, _RESOLVED)
) -> Resolver:
    """Choose a resolver. `requested`: the provider's option `dns`; `own`: prefixes that the host
    answers for itself."""
    if requested != _AUTO:
        return Resolver(requested, "by dns")
    denied = [ipaddress.IPv4Network(prefix) for prefix in (*network.SPECIAL, *own)]
    for file in files:
        for address in _named(file):
            if address.is_global and not any(address in prefix for prefix in denied):
                return Resolver(str(address), f"of {file}")
    return Resolver(PUBLIC, f"{_LOCAL} names none of the internet")


def check(requested: str) -> None:
    """Raises ConfigError for an option that is none."""
    if requested == _AUTO:
        return
    try:
        address = ipaddress.IPv4Address(requested)
    except ValueError:
        raise ConfigError(
            f"dns: {requested!r} is no IPv4 address", hint='dns = "auto", or such as "9.9.9.9"'
        ) from None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise ConfigError(
            f"dns: {requested} is no resolver that a VM could reach",
            hint="name the one that it asks itself",
        )


def _named(file: Path) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 resolvers in a file as resolv.conf."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        match line.split():
            case ["nameserver", address, *_]:
                try:
                    yield ipaddress.IPv4Address(address)
                except ValueError:
                    continue
