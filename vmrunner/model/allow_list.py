"""The hosts that a build may reach by name, as an allow-list; and all that `network` may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.model.choices import Network

HTTPS: Final = 443  # an entry's port where it names none
HTTP: Final = 80  # the one port of plain HTTP; every other is TLS
WILDCARD: Final = "*."
#: Characters that a name may have below a wildcard: the servers of that zone see them.
LONGEST_BELOW: Final = 100


@dataclass(frozen=True, slots=True)
class AllowList:
    """Entries `HOST`, `HOST:PORT`, `*.HOST` and `*.HOST:PORT`, as `config.network_policy` leaves
    them: lower-case ASCII, each once."""

    allow: tuple[str, ...]

    @property
    def value(self) -> dict[str, list[str]]:
        """The list as documents have it."""
        return {"allow": list(self.allow)}

    @property
    def inside(self) -> Network:
        """The policy inside the guest: the list is enforced from outside."""
        return Network.OPEN

    @property
    def ports(self) -> frozenset[int]:
        return frozenset(port for _, port in self._entries())

    def permits(self, name: str, port: int) -> bool:
        """True if a connection to this name, in lower case, may be made."""
        return any(port == at and _fits(pattern, name) for pattern, at in self._entries())

    def knows(self, name: str) -> bool:
        """True if this name, in lower case, may be reached at some port."""
        return any(_fits(pattern, name) for pattern, _ in self._entries())

    def names(self, name: str) -> bool:
        """True if an entry is this very name, and no wildcard lets it in."""
        return any(pattern == name for pattern, _ in self._entries())

    def __str__(self) -> str:
        return f"allow={','.join(self.allow)}"

    def _entries(self) -> Iterator[tuple[str, int]]:
        for entry in self.allow:
            host, _, port = entry.partition(":")
            yield host, int(port or HTTPS)


def _fits(pattern: str, name: str) -> bool:
    if not pattern.startswith(WILDCARD):
        return name == pattern
    below = name.removesuffix(pattern[1:])
    return name.endswith(pattern[1:]) and 0 < len(below) <= LONGEST_BELOW


NetworkPolicy = Network | AllowList


def network_of(value: Any) -> NetworkPolicy:
    """Return the policy that a document shows. Raises ValueError or TypeError for none."""
    if isinstance(value, dict):
        return AllowList(tuple(map(str, value["allow"])))
    return Network(value)
