"""The longest life of a provider's VMs: the least of the configuration and what its system can."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.providers import registry

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings


class LongestLife(NamedTuple):
    """Seconds, whose they are in words, and how to get more."""

    seconds: float
    owner: str
    fix: str


def longest_life(settings: Settings, provider: str | None) -> LongestLife:
    """The longest life of a VM there; of a provider that is not configured, what the limits say:
    that it is not is told elsewhere."""
    most = settings.limits.max_ttl
    try:
        name = settings.provider(provider)
    except ConfigError:
        name = ""
    kind = settings.providers[name].kind if name in settings.providers else ""
    driver = registry.find(kind) if kind else None
    if driver is not None and driver.max_ttl < most:
        owner = f"the {units.exact(driver.max_ttl)} that provider {name} ({kind}) can give"
        return LongestLife(driver.max_ttl, owner, "another provider")
    return LongestLife(most, f"limits.max_ttl {units.exact(most)}", "a larger limits.max_ttl")
