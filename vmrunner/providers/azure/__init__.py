"""Microsoft's Azure: virtual machines.

Azure's SDK is imported only when a provider is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers.azure.provider import AzureProvider


def open(  # noqa: A001 - as `Driver` calls it
    name: str, *, installation: str, used: Sequence[str] = (), **options: Any
) -> AzureProvider:
    """The provider called `name`. `used`: resource groups in which it ever launched. The other
    `options` are the fields of `options.AzureOptions`. Nothing is asked of Azure yet."""
    from vmrunner.providers.azure.options import AzureOptions
    from vmrunner.providers.azure.provider import AzureProvider

    for field in ("zones", "machine_types"):
        if field in options:
            options[field] = tuple(options[field])
    return AzureProvider(
        AzureOptions(name=name, installation=installation, used=tuple(used), **options)
    )


DRIVER = Driver(
    kind="azure",
    settings="vmrunner.providers.azure.settings:AzureSettings",
    open=open,
    needs=frozenset({"installation", "used"}),
    options="vmrunner.providers.azure.options:AzureOptions",
    extra="vmrunner[azure]",
    platform="azure",
    prices="vmrunner.providers.azure.prices:USD_HOUR",
    priced_on="2025-01-01",
    told={"subscription": "account", "resource_group": "place"},
    ids_are_names=True,
    parks=True,
    machine_types="machine_types",
    guard="azure/terraform",
)
