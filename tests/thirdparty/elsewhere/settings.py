"""The table of such a provider in the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vmrunner.providers.settings import Bytes, ProviderSettings


class ElsewhereSettings(ProviderSettings):
    """VMs elsewhere."""

    kind: Literal["elsewhere"]
    region: str | None = Field(default=None, description="Where it launches.")
    endpoint: str | None = None
    memory: Bytes | None = None
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar[frozenset[str]] = ProviderSettings.harmless | {"memory", "region"}


class NamelessSettings(ProviderSettings):
    """VMs without names."""

    kind: Literal["nameless"]
    max_instances: int | None = Field(default=None, ge=1)
