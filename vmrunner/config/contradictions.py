"""Contradictions of a configuration: values that are each right, and cannot hold together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError
from vmrunner.lib import units

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings


def of(settings: Settings) -> list[ConfigError]:
    """Settings that `serve`, or every build, would refuse. Nothing is opened or asked."""
    from vmrunner.config import pools

    checks: list[Callable[[], object]] = [
        lambda: settings.default_provider is None or settings.provider(None),
        lambda: _timeout(settings),
        *(
            lambda name=name, pool=pool: pools.spec_of(settings, name, pool)
            for name, pool in settings.pools.items()
        ),
        *(
            lambda name=name, provider=provider: _memory(name, provider)
            for name, provider in settings.providers.items()
        ),
    ]
    found = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            found.append(error)
    return found


def _memory(name: str, provider: object) -> None:
    memory, least = getattr(provider, "memory", None), field_checks.LEAST_MEMORY
    if isinstance(memory, int) and memory < least:
        raise ConfigError(
            f"providers.{name}.memory: {units.exact_size(memory)} is less than a VM needs",
            hint=f"{units.exact_size(least)} or more",
        )


def _timeout(settings: Settings) -> None:
    timeout, most = settings.defaults.timeout, settings.limits.max_ttl
    if timeout >= most:
        raise ConfigError(
            f"defaults.timeout: {units.exact(timeout)} is not below limits.max_ttl, "
            f"{units.exact(most)}",
            hint="a shorter one, or a larger limit",
        )
