"""Google's Compute Engine.

google-cloud-compute is imported only when a provider is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers.gce.provider import GceProvider


def open(  # noqa: A001 - as `Driver` calls it
    name: str, *, installation: str, used: Sequence[str] = (), **options: Any
) -> GceProvider:
    """The provider called `name`. `used`: zones in which it ever launched. The other `options` are
    the fields of `options.Options`. Nothing is asked of Google yet."""
    from vmrunner.providers.gce.options import GceOptions
    from vmrunner.providers.gce.provider import GceProvider

    for field in ("zones", "machine_types", "network_tags", "network_tags_none"):
        if field in options:
            options[field] = tuple(options[field])
    return GceProvider(
        GceOptions(name=name, installation=installation, used=tuple(used), **options)
    )


DRIVER = Driver(
    kind="gce",
    settings="vmrunner.providers.gce.settings:GceSettings",
    open=open,
    needs=frozenset({"installation", "used"}),
    options="vmrunner.providers.gce.options:GceOptions",
    extra="vmrunner[gcp]",
    platform="gce",
    # A VM that is off loses the cloud's own deadline while its disk still bills: the cloud first.
    guest_timer_delay=300.0,
    prices="vmrunner.providers.gce.prices:USD_HOUR",
    priced_on="2025-01-01",
    told={"project": "account"},
    ids_are_names=True,
    parks=True,
    machine_types="machine_types",
    guard="gcp/terraform",
)
