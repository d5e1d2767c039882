"""Limits of time that follow the machine at hand, by a boot that was measured on it just now: an
emulated VM on a busy host takes many times what one under KVM does. Pure."""

from __future__ import annotations

from typing import Final

#: Seconds of a boot on a quiet machine that emulates.
USUAL: Final = 15.0
#: Seconds that a first boot may take, before which nothing was measured: an emulated one took
#: 205 s at a load of 15.
FIRST_BOOT: Final = {"kvm": 300.0, "tcg": 1200.0}


def patience(seconds: float, boot: float) -> float:
    """Return the seconds to allow, on a machine that booted in `boot` seconds, for what takes
    `seconds` on a quiet one."""
    return seconds * max(1.0, boot / USUAL)
