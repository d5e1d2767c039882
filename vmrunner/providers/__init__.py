"""Drivers: `port.py` is what each must do, `registry.py` which there are."""

from vmrunner.providers.port import (
    Arms,
    BootsLocalImages,
    Driver,
    LowersDeadline,
    Parks,
    Provider,
    Seals,
    ShowsGuardedRoles,
)
from vmrunner.providers.registry import load

__all__ = [
    "Arms",
    "BootsLocalImages",
    "Driver",
    "LowersDeadline",
    "Parks",
    "Provider",
    "Seals",
    "ShowsGuardedRoles",
    "load",
]
