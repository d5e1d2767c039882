"""The table of such a provider in the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vmrunner.providers.settings import ProviderSettings


class FormerSettings(ProviderSettings):
    """VMs of a former driver."""

    kind: Literal["former"]
    region: str | None = Field(default=None, description="Where it launches.")
    machine_types: list[str] | None = None
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar[frozenset[str]] = ProviderSettings.harmless | {"region"}
