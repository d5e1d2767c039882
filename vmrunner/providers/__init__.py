"""Drivers: `port.py` is what each must do, `registry.py` which there are."""

from vmrunner.providers.port import (
    Arms,
    Bills,
    BootsLocalImages,
    Driver,
    HoldsAllowLists,
    HoldsNoNetwork,
    LookPace,
    LowersDeadline,
    PacesLooks,
    Parks,
    Provider,
    Seals,
    ShowsGuardedRoles,
    StartsUnits,
    TellsContainer,
    TellsPrices,
    TellsUsage,
)
from vmrunner.providers.registry import load

__all__ = [
    "Arms",
    "Bills",
    "BootsLocalImages",
    "Driver",
    "HoldsAllowLists",
    "HoldsNoNetwork",
    "LookPace",
    "LowersDeadline",
    "PacesLooks",
    "Parks",
    "Provider",
    "Seals",
    "ShowsGuardedRoles",
    "StartsUnits",
    "TellsContainer",
    "TellsPrices",
    "TellsUsage",
    "load",
]
