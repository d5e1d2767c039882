"""Quotas of the subscription in its location, and what is left of them: an offer for which there is
no room is not tried. The last word is a create's: others use the subscription too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from vmrunner.errors import QuotaExceeded
from vmrunner.model import Market
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.catalog import AzureSize
from vmrunner.providers.azure.client import NETWORK_USAGE, USAGE, AzureApi, AzureClient, part
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.capacity_pools import CapacityPool
from vmrunner.providers.common.clock import boottime

log = logging.getLogger(__name__)

#: So long an answer holds, in seconds: one in which all has room, and one in which something has
#: none, or that did not come.
FITS, FULL = 300.0, 30.0
#: Quotas of public addresses, of which a new subscription has 20 in a location.
ADDRESSES: Final = (
    "PublicIPAddresses",
    "StandardSkuPublicIpAddresses",
    "IPv4StandardSkuPublicIpAddresses",
)
HINT: Final = "raise the subscription's quota, or run fewer at once"


class AzureUsage(NamedTuple):
    """The use of one quota."""

    used: int
    limit: int


class AzureQuotas:
    """The quotas, as they were a moment ago. Thread-safe."""

    def __init__(
        self, options: AzureOptions, client: AzureClient, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._options = options
        self._client = client
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._usages: Mapping[str, AzureUsage] | None = None
        self._asked_at = 0.0
        self._warned: frozenset[str] = frozenset()

    def forget(self) -> None:
        """Look anew at the next question: a create was refused."""
        with self._lock:
            self._usages = None

    def usages(self) -> Mapping[str, AzureUsage]:
        """Ask, and return the usages by name in lower case: of sizes, and of addresses as far as
        these credentials may read those. Raises `CallFailed`."""
        found = self._listed(USAGE)
        try:
            found |= self._listed(NETWORK_USAGE)
        except CallFailed as failed:
            if failed.code not in error_codes.DENIED:  # by a role of a former version
                raise
        return found

    def fitting(
        self, pools: Sequence[CapacityPool], sizes: Mapping[str, AzureSize]
    ) -> list[CapacityPool]:
        """Return the pools of which one VM has room. Raises `QuotaExceeded` when none has."""
        with self._lock:
            lacks = self._lacks(pools, sizes, FITS)
            if lacks:
                lacks = self._lacks(pools, sizes, FULL)
            reasons = frozenset(lacks.values())
            fresh, self._warned = reasons - self._warned, reasons
        for reason in sorted(fresh):
            log.warning("%s: not offered: %s", self._options.name, reason)
        if pools and len(lacks) == len(pools):
            where = f"{self._options.location}: no quota has room"
            raise QuotaExceeded(f"{where}: {'; '.join(sorted(reasons))}", hint=HINT)
        return [pool for pool in pools if pool not in lacks]

    # --- within ---

    def _listed(self, api: AzureApi) -> dict[str, AzureUsage]:
        return {
            str(part(usage, "name", "value")).lower(): AzureUsage(
                int(usage["currentValue"]), int(usage["limit"])
            )
            for usage in self._client.listed(api, location=self._options.location)
        }

    def _lacks(
        self, pools: Sequence[CapacityPool], sizes: Mapping[str, AzureSize], age: float
    ) -> dict[CapacityPool, str]:
        """Reasons of pools without room, by usages of at most `age` seconds. A quota that is not
        told lacks nothing."""
        now = self._elapsed()
        if self._usages is None or now - self._asked_at >= age:
            try:
                self._usages = self.usages()
            except (CallFailed, KeyError, TypeError, ValueError) as error:
                log.info("%s: quotas are not told: %s", self._options.name, error)
                self._usages, now = {}, now + FULL - FITS
            self._asked_at = now
        found = {}
        for pool in pools:
            wanted = needs(sizes[pool.machine_type], pool.market, self._options)
            for lack in lacking(self._usages, wanted):
                found[pool] = f"{pool.machine_type} {pool.market.value}: {lack}"
                break
        return found


def needs(size: AzureSize, market: Market, options: AzureOptions) -> dict[str, int]:
    """Units that one VM takes, by the quota's name."""
    spot = market is Market.SPOT
    cores = ("lowPriorityCores",) if spot else ("cores", size.family)
    single = ("virtualMachines", *(ADDRESSES if options.address == "public" else ()))
    return {**{name: size.cpus for name in cores if name}, **dict.fromkeys(single, 1)}


def lacking(usages: Mapping[str, AzureUsage], wanted: Mapping[str, int]) -> Iterator[str]:
    """Yield the quotas that have no room for one VM: `cores 9 of 10: one VM needs 2`."""
    for name, count in wanted.items():
        usage = usages.get(name.lower())
        if usage is not None and usage.limit - usage.used < count:
            yield f"{name} {usage.used} of {usage.limit}: one VM needs {count}"
