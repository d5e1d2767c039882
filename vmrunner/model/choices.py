"""Choices of a user, by a word: in the configuration too."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Network(StrEnum):
    """The network of a build: the internet, or none. `AllowList` has single hosts."""

    OPEN = "open"  # the internet; never the host, private ranges, link-local or another VM
    NONE = "none"

    @property
    def inside(self) -> Network:
        """The policy inside the guest."""
        return self


#: No pool has more VMs.
MOST_VMS: Final = 10_000


class PoolKind(StrEnum):
    """State in which a pool's VMs wait."""

    HOT = "hot"  # they run, with SSH connected and a container waiting
    PARKED = "parked"  # stopped or suspended: their disks bill, their processors do not


class NotifyEvent(StrEnum):
    """Events that a webhook can get."""

    BUILD_ENDED = "build.ended"
    SURVIVOR = "alarm.survivor"  # a VM is past its deadline and still there
    ORPHANS_LATCHED = "alarm.orphans_latched"  # more orphans than the cap: none is ended
    REAPER_SILENT = "alarm.reaper_silent"  # no reaper finishes its passes
    CLOCKS_APART = "alarm.clocks_apart"  # a node's clock is not the others'
    RETENTION_FAILING = "alarm.retention_failing"  # what should go cannot be read or removed
    BUDGET = "alarm.budget"  # nearly all of a budget is spent or held
    POOL_FAILING = "alarm.pool_failing"  # a pool's VMs do not come up, or are refused, in a row
