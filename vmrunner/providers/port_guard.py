"""The guard, as a provider shows it: what lives in the cloud account and ends what is past its
deadline with nothing of vmrunner's running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

if TYPE_CHECKING:
    from vmrunner.model import Finding

#: So often it is invoked, and so long it may be silent, in seconds.
GUARD_INTERVAL: Final = 300
SILENCE: Final = 1200
#: What a guard ends that does not tell: it was made before they told.
ROLES_ONCE: Final = frozenset({"build", "image"})


class PartState(StrEnum):
    """A part of the guard, beside what it should be."""

    PRESENT = "present"
    ABSENT = "absent"
    DIFFERS = "differs"
    UNKNOWN = "unknown"  # it could not be looked at


class Policy(StrEnum):
    """The subject of a policy."""

    VMRUNNER = "vmrunner"
    GUARD = "guard"
    DENY_UNTAGGED = "deny-untagged"


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardPart:
    """One thing that the guard consists of. `done`: what was done about it just now."""

    name: str
    id: str
    state: PartState
    detail: str = ""
    done: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardSpec:
    """The guard as it should be. None: as it is, or the default. No regions: all that are
    enabled."""

    max_ttl: float  # seconds
    regions: tuple[str, ...] | None = None
    grace: float | None = None  # seconds
    everyone: bool | None = None  # any installation's
    notify: tuple[str, ...] | None = None  # where its alarms are told


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardStatus:
    """`last_success`: when it was last invoked without an error, to five minutes; None: not within
    a day. `silent`: that was too long ago."""

    parts: tuple[GuardPart, ...]
    last_success: float | None
    silent: bool

    @property
    def well(self) -> bool:
        return not self.silent and all(part.state is PartState.PRESENT for part in self.parts)


class Guard(Protocol):
    """A guard, whose calls may all be made again at any time. They raise `ProviderError`, or
    `ConfigError` for a spec that cannot be met."""

    def install(self, spec: GuardSpec) -> Iterator[GuardPart]:
        """Make or mend part by part; each is yielded once it is as `spec` says."""

    def status(self, spec: GuardSpec) -> GuardStatus:
        """A part that cannot be looked at is UNKNOWN."""

    def remove(self) -> Iterator[GuardPart]:
        """Part by part; one that cannot be removed is PRESENT, with the reason, and stops none."""

    def policy(self, audience: Policy) -> str:
        """A JSON document."""


@runtime_checkable
class CanHaveGuard(Protocol):
    """A provider whose account can hold layers that end a VM past its deadline."""

    def unguarded(self) -> Sequence[Finding]:
        """Findings of missing parts, each with the guarantee that holds without it; empty when none
        is missing. Raises `ProviderError`."""


@runtime_checkable
class CanInstallGuard(CanHaveGuard, Protocol):
    """One whose guard we can make."""

    def guard(self) -> Guard:
        """The guard, installed or not."""
