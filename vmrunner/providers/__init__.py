"""Drivers: `port.py` is what each must do, `registry.py` which there are.

What is named here is loaded when it is first used: every keeper of a local VM imports this package,
and needs none of it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{'registry' if name == 'load' else 'port'}")
    return globals().setdefault(name, getattr(module, name))
