"""The table of an Azure provider in the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vmrunner.providers.settings import Bytes, ProviderSettings


class AzureSettings(ProviderSettings):
    """VMs in Microsoft's Azure. Credentials come from the SDK's own chain alone."""

    kind: Literal["azure"]
    subscription: str | None = Field(default=None, description="The subscription's id.")
    resource_group: str | None = Field(
        default=None, description="A group that nothing but this installation's VMs are in."
    )
    location: str | None = Field(default=None, description="The region in which to launch.")
    zones: tuple[str, ...] = Field(
        default=(), description="In the order in which to try them; default: wherever Azure likes."
    )
    image: str | None = Field(
        default=None,
        description="An image's name, id or PUBLISHER:OFFER:SKU:VERSION; default: the promoted.",
    )
    images: Literal["gallery", "managed"] | None = Field(
        default=None,
        description="What image build makes; default: gallery, or managed where image names one.",
    )
    machine_types: tuple[str, ...] | None = Field(
        default=None, description="In the order in which to try them."
    )
    subnet: str | None = Field(default=None, description="NETWORK/SUBNET of the group, or an id.")
    security_group: str | None = Field(
        default=None, description="One of the VMs' own, by name or id; default: the subnet's alone."
    )
    security_group_none: str | None = Field(
        default=None,
        description="Of `network: none`, by name or id: it lets SSH in, and nothing out.",
    )
    spot: Literal["never", "prefer", "only"] | None = Field(
        default=None, description="Default: where a build asks for it."
    )
    address: Literal["public", "private"] = Field(
        default="public", description="The address over which SSH goes."
    )
    disk: Bytes | None = None
    disk_type: str | None = Field(default=None, description="StandardSSD_LRS, Premium_LRS, …")
    os_disk: Literal["managed", "ephemeral"] | None = Field(
        default=None, description="ephemeral: on the host, where the size has room; cannot park."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Beside vmrunner's own.")
    guard: str | None = Field(
        default=None, description="The resource group in which deploy/azure put the guard."
    )
    endpoint: str | None = Field(
        default=None, description="Default: Azure's. To http://… no credentials go."
    )
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar = ProviderSettings.harmless | {
        "disk", "disk_type", "machine_types", "spot", "zones",
    }  # fmt: skip
