"""The table of a QEMU provider in the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vmrunner.providers.settings import Bytes, Flag, LocalSettings, ProviderSettings


class QemuSettings(LocalSettings):
    """VMs on this machine."""

    kind: Literal["qemu"]
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    image: str | None = Field(default=None, description="A local image's name or hash.")
    dns: str = Field(
        default="auto",
        description="Whom builds ask for names; auto: a public one of this host's, or 9.9.9.9.",
    )
    cpus: int | None = Field(default=None, ge=1)
    memory: Bytes | None = None
    disk: Bytes | None = None
    templates: Flag | None = Field(
        default=None, description="false: boot each VM; default: from a template, where one fits."
    )
    templates_max_bytes: Bytes | None = Field(
        default=None, description="Room for templates in the cache; 20 GiB."
    )
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar = ProviderSettings.harmless | {
        "accel", "cpus", "disk", "image", "memory", "templates",
    }  # fmt: skip
