"""The table of a provider in memory in the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vmrunner.providers.settings import ProviderSettings


class FakeSettings(ProviderSettings):
    """A cloud in memory, for tests."""

    kind: Literal["fake"]
    max_instances: int | None = Field(default=None, ge=1)
