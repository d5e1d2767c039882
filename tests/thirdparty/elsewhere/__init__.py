"""A driver as somebody else would ship it: all that vmrunner knows of it is `DRIVER`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers import Provider


def open(name: str, **options: Any) -> Provider:  # noqa: A001
    from elsewhere.provider import ElsewhereProvider

    return ElsewhereProvider(name, **options)


DRIVER = Driver(
    kind="elsewhere",
    settings="elsewhere.settings:ElsewhereSettings",
    open=open,
    needs=frozenset({"installation"}),
    options="elsewhere.provider:ElsewhereOptions",
    extra="vmrunner-elsewhere[sdk]",
    platform=str(Path(__file__).with_name("cloud")),
    guest_timer_delay=30.0,
    prices="elsewhere.provider:USD_HOUR",
    told={"region": "place"},
)
