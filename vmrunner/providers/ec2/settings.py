"""The table of an EC2 provider in the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vmrunner.lib.config_section import Section
from vmrunner.providers.settings import Bytes, ProviderSettings


class ImageSettings(Section):
    """The AMI that fits and was promoted last, else the newest."""

    owner: str = Field(default="self", description="An account, `self` or `amazon`.")
    name: str | None = Field(default=None, description="May have * and ?.")
    tags: dict[str, str] = Field(default_factory=dict)


class Ec2Settings(ProviderSettings):
    """VMs in Amazon's EC2. Credentials come from the SDK's own chain alone."""

    kind: Literal["ec2"]
    region: str | None = Field(default=None, description="Default: the SDK's own.")
    profile: str | None = Field(default=None, description="A profile of the SDK's configuration.")
    image: str | ImageSettings | None = Field(
        default=None, description="An AMI's id or name; default: `vmrunner-*` of yours."
    )
    subnets: tuple[str, ...] = Field(default=(), description="In the order in which to try them.")
    security_groups: tuple[str, ...] = ()
    subnets_none: tuple[str, ...] = Field(
        default=(), description="Where `network: none` is; default: subnets."
    )
    security_groups_none: tuple[str, ...] = Field(
        default=(),
        description="Of `network: none`: they let SSH in, and nothing out.",
    )
    instance_types: tuple[str, ...] | None = Field(
        default=None, description="In the order in which to try them."
    )
    spot: Literal["never", "prefer", "only"] | None = Field(
        default=None, description="Default: where a build asks for it."
    )
    address: Literal["public", "private"] = Field(
        default="public", description="The address over which SSH goes."
    )
    disk: Bytes | None = None
    tags: dict[str, str] = Field(default_factory=dict, description="Beside vmrunner's own.")
    instance_profile: str | None = Field(
        default=None, description="What every build may use: its root can read its credentials."
    )
    scheduler_role: str | None = Field(
        default=None,
        description="Arms each VM with a schedule of AWS's own, which may end it by this role.",
    )
    endpoint_url: str | None = None
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar = ProviderSettings.harmless | {
        "disk", "instance_types", "region", "spot",
    }  # fmt: skip
