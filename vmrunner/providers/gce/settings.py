"""The table of a Compute Engine provider in the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vmrunner.providers.settings import Bytes, ProviderSettings


class GceSettings(ProviderSettings):
    """VMs in Google's Compute Engine. Credentials come from the SDK's own chain alone."""

    kind: Literal["gce"]
    project: str | None = Field(default=None, description="The project's id.")
    zones: tuple[str, ...] = Field(default=(), description="In the order in which to try them.")
    image: str | None = Field(
        default=None,
        description="A link, an image's name or family/NAME; default: family/vmrunner.",
    )
    machine_types: tuple[str, ...] | None = Field(
        default=None, description="In the order in which to try them."
    )
    network: str | None = Field(default=None, description="Default: global/networks/default.")
    subnetwork: str | None = Field(default=None, description="regions/REGION/subnetworks/NAME.")
    network_tags: tuple[str, ...] = Field(default=(), description="Firewall rules go by them.")
    network_tags_none: tuple[str, ...] = Field(
        default=(),
        description="Of `network: none`, instead: a rule denies what goes out from them.",
    )
    spot: Literal["never", "prefer", "only"] | None = Field(
        default=None, description="Default: where a build asks for it."
    )
    address: Literal["public", "private"] = Field(
        default="public", description="The address over which SSH goes."
    )
    disk: Bytes | None = None
    disk_type: str | None = Field(default=None, description="pd-balanced, pd-ssd, …")
    labels: dict[str, str] = Field(default_factory=dict, description="Beside vmrunner's own.")
    service_account: str | None = Field(
        default=None, description="What every build may use: its root can read its tokens."
    )
    guard: str | None = Field(
        default=None, description="The region in which deploy/gcp/terraform put the guard."
    )
    api_endpoint: str | None = Field(
        default=None, description="Default: Google's. To http://… no credentials go."
    )
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar = ProviderSettings.harmless | {
        "disk", "disk_type", "machine_types", "spot", "zones",
    }  # fmt: skip
