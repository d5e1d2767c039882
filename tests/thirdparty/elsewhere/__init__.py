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


def nameless(name: str, **options: Any) -> Provider:
    """Open one whose cloud shows whose a VM is, and not which."""
    from elsewhere.provider import NamelessProvider

    return NamelessProvider(name, **options)


#: Of two systems, one has it shorter: no VM there lives for more than eight hours, and its system
#: may start containers itself, if somebody configures that.
NAMELESS = Driver(
    kind="nameless",
    settings="elsewhere.settings:NamelessSettings",
    open=nameless,
    needs=frozenset({"installation"}),
    names=False,
    units=True,
    max_ttl=8 * 3600.0,
)

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
