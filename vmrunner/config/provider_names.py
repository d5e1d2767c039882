"""Choice of a configured provider by what a user calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmrunner.errors import ConfigError
from vmrunner.lib import units


def chosen(wanted: str | None, default: str | None, providers: Mapping[str, Any]) -> str:
    """The configured name for `--provider`: a name, or a kind that only one of them has. None is
    the default provider. `providers`: their tables, each with its `kind`."""
    field = "provider"
    if wanted is None:
        wanted, field = default, "default_provider"
    if wanted is None:
        if len(providers) == 1:
            return next(iter(providers))
        names = ", ".join(sorted(providers))
        raise ConfigError(
            f"default_provider: not set, and there are several providers: {names}",
            hint="set it, or name a provider",
        )
    if wanted in providers:
        return wanted
    having = [name for name, provider in providers.items() if provider.kind == wanted]
    if len(having) == 1:
        return having[0]
    if having:
        raise ConfigError(
            f"{field}: {wanted!r} is the kind of several providers",
            hint=f"name one: {', '.join(sorted(having))}",
        )
    raise ConfigError(
        f"{field}: no provider {wanted[:80]!r} is configured",
        hint=units.did_you_mean(wanted, providers),
    )
