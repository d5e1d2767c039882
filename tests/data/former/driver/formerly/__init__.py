"""A driver of another distribution, as it was written for the port of November 2026. It is frozen:
what it imports and returns is what vmrunner promised to drivers then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers import Provider


def open(name: str, **options: Any) -> Provider:  # noqa: A001
    from formerly.provider import FormerProvider

    return FormerProvider(name, **options)


DRIVER = Driver(
    kind="former",
    settings="formerly.settings:FormerSettings",
    open=open,
    needs=frozenset({"installation", "used"}),
    extra="vmrunner-formerly[sdk]",
    guest_timer_delay=30.0,
    prices="formerly.provider:USD_HOUR",
    priced_on="2026-11-01",
    told={"region": "place"},
    parks=True,
    machine_types="machine_types",
)
