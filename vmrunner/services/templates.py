"""Templates: frozen VMs that local builds start from, made before a build wants one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from vmrunner.config.settings import Settings
from vmrunner.core import shapes
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.images import templates
from vmrunner.model import BuildSpec
from vmrunner.providers import Provider
from vmrunner.providers.port import StartsFromTemplates

log = logging.getLogger("vmrunner")


def make(
    provider: Provider,
    spec: BuildSpec,
    settings: Settings,
    *,
    installation: str,
    progress: Callable[[str], object] = lambda _: None,
) -> str | None:
    """Make the template for builds like this one and return its key; None: there is one, or none
    would fit. Raises ConfigError, ImageError and what the provider raises."""
    shape = shapes.container(spec, log_bytes=settings.limits.log_bytes)
    if not isinstance(provider, StartsFromTemplates):
        raise ConfigError(
            f"provider: {provider.name} starts no VM from a template", hint="name a local one"
        )
    if shape is None:
        raise ConfigError(
            "bootstrap, container_runtime: such builds start from no template",
            hint="leave them out",
        )
    return templates.make(
        provider, shapes.machine(spec), shape.waiting, installation=installation, progress=progress
    )


def trim(providers: Iterable[Provider]) -> int:
    """Remove templates that have no room or no image any more, and what makers left. Returns how
    many templates went."""
    return sum(
        len(provider.template_maker().trim())
        for provider in providers
        if isinstance(provider, StartsFromTemplates)
    )


def make_wanted(provider: Provider, *, installation: str) -> str | None:
    """Make the template that a build missed last, if one did and it can be made. Returns its
    key."""
    if isinstance(provider, StartsFromTemplates):
        for spec, shape in provider.wanted_templates():
            try:
                if key := templates.make(provider, spec, shape, installation=installation):
                    return key
            except VmrunnerError as error:
                log.warning("%s: no template was made: %s", provider.name, error)
    return None
