"""Ceilings: the most that may be asked for, whatever the defaults are. Pure."""

from __future__ import annotations

from collections.abc import Collection

from vmrunner.model import AllowList, Network, NetworkPolicy
from vmrunner.model.allow_list import HTTPS, LONGEST_BELOW, WILDCARD

#: The word that stands for all images.
ANY_IMAGE = "*"


def covers(ceiling: NetworkPolicy, wanted: NetworkPolicy) -> bool:
    """True if a build with the network `wanted` reaches nothing that `ceiling` would not let it."""
    if wanted is Network.NONE or ceiling is Network.OPEN:
        return True
    if not isinstance(ceiling, AllowList) or not isinstance(wanted, AllowList):
        return False
    return all(_covered(ceiling, entry) for entry in wanted.allow)


def _covered(ceiling: AllowList, entry: str) -> bool:
    host, _, number = entry.partition(":")
    port = int(number or HTTPS)
    if not host.startswith(WILDCARD):
        return ceiling.permits(host, port)
    for whole in ceiling.allow:
        pattern, _, at = whole.partition(":")
        # All names below one that is itself below: with a part in between a name is longer.
        same = pattern == host
        above = pattern.startswith(WILDCARD) and host.endswith(pattern[1:]) and not same
        if int(at or HTTPS) == port and (same or (above and len(host) < LONGEST_BELOW)):
            return True
    return False


def image_allowed(name: str, allowed: Collection[str]) -> bool:
    """True if an image may be asked for by this name: no beginning and no pattern, which the cloud
    would resolve otherwise."""
    return name in allowed or ANY_IMAGE in allowed
