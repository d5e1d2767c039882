"""The drivers there are: the packages beside this file, and those of other distributions, by their
entry point. Nothing else looks for one.

The keeper of a local VM imports this package too: what it does not need is imported late."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from vmrunner import providers
from vmrunner.errors import ConfigError
from vmrunner.model import Price
from vmrunner.providers.port import Driver, Provider

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.lib.channels import Channel
    from vmrunner.providers.settings import ProviderSettings

#: An entry point of this group is named after a kind, and is its `Driver`.
GROUP: Final = "vmrunner.providers"
_KIND: Final = re.compile(r"[a-z][a-z0-9]*")


@cache
def drivers() -> Mapping[str, Driver]:
    """All drivers by kind: ours first, which no other replaces. One of another distribution that
    cannot be used is left out with a warning: it must not keep reapers from other providers."""
    import logging
    from importlib.metadata import entry_points

    found = dict(_ours())
    for point in entry_points(group=GROUP):
        if point.value.startswith(f"{providers.__name__}."):
            continue  # a checkout has them without metadata
        try:
            driver = _checked(point.load(), point.name, found)
        except Exception as error:  # noqa: BLE001 - it is a third party's code
            log = logging.getLogger("vmrunner")
            log.warning("driver %s (%s) is left out: %r", point.name, point.value, error)
        else:
            found[driver.kind] = driver
    return found


def find(kind: str) -> Driver | None:
    """The driver of this kind, where there is one: a row may be of a kind that was uninstalled.
    Other distributions are asked only when it is none of ours."""
    return _ours().get(kind) or drivers().get(kind)


def load(kind: str, name: str, **options: Any) -> Provider:
    """The provider of this kind under its configured name; only now is its SDK imported.

    `options` are the driver's own, and its needs. `ConfigError` when there is no such kind or its
    SDK is missing; the driver raises it for a bad option."""
    driver = find(kind)
    if driver is None:
        what = f"no kind {kind!r}" if _KIND.fullmatch(kind) else f"{kind!r} is not a kind"
        raise ConfigError(f"providers.{name}.kind: {what}", hint=f"one of: {', '.join(drivers())}")
    try:
        return driver.open(name, **options)
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"providers.{name}: kind {kind!r} needs the Python package {missing.name!r}",
            hint=f"pip install '{driver.extra}'" if driver.extra else "",
        ) from missing


def channel(kind: str, provider: Callable[[], Provider]) -> Channel:
    """Return the way to the sshds of its instances. `provider` opens it, for a channel that needs
    its credentials."""
    from vmrunner.lib.channels import TCP

    driver = find(kind)
    if driver is None or not driver.channel:
        return TCP
    made: Channel = _named(driver.channel)(provider)
    return made


def box(kind: str, provider: Callable[[], Provider]) -> Box:
    """Runtime of container images in its instances. `provider` opens it, where that may be another
    than Docker."""
    from vmrunner.core.boxes import DOCKER
    from vmrunner.providers import capabilities

    driver = find(kind)
    return capabilities.box(provider()) if driver is not None and driver.units else DOCKER


def is_host_bound(kind: str) -> bool:
    """True if its instances live and die with the host that made them (`Driver.host_bound`)."""
    driver = find(kind)
    return driver is not None and driver.host_bound


def settings_of(driver: Driver) -> type[ProviderSettings]:
    """The table of such a provider in the configuration."""
    from vmrunner.providers.settings import ProviderSettings

    found: type[ProviderSettings] = _named(driver.settings)
    if not issubclass(found, ProviderSettings) or "max_instances" not in found.model_fields:
        raise TypeError(f"{driver.settings} is no ProviderSettings with max_instances")
    return found


def defaults(kind: str) -> dict[str, Any]:
    """Defaults of the options of a provider of this kind, by name; no SDK is imported."""
    driver = find(kind)
    if driver is None or not driver.options:
        return {}
    given = {part.name: part.default for part in dataclasses.fields(_named(driver.options))}
    return {
        name: dataclasses.asdict(value) if hasattr(value, "__dataclass_fields__") else value
        for name, value in given.items()
        if value is not None and value is not dataclasses.MISSING
    }


def machine_types(settings: ProviderSettings) -> tuple[str, Sequence[str]] | None:
    """Return the setting that lists all types which such a provider offers, and these; None: it has
    no such setting."""
    kind = str(settings.kind)
    driver = find(kind)
    if driver is None or not driver.machine_types:
        return None
    configured = getattr(settings, driver.machine_types, None)
    return driver.machine_types, configured or defaults(kind).get(driver.machine_types, ())


@cache
def prices(kind: str) -> Mapping[str, Price]:
    """The prices that its driver ships, by item."""
    driver = find(kind)
    if driver is None or not driver.prices:
        return {}
    day = datetime.fromisoformat(driver.priced_on) if driver.priced_on else datetime(1970, 1, 1)
    at = day.replace(tzinfo=UTC).timestamp()
    return {item: Price(usd, at) for item, usd in _named(driver.prices).items()}


def _named(what: str) -> Any:
    """The object that "module:name" names."""
    module, _, name = what.partition(":")
    return getattr(importlib.import_module(module), name)


@cache
def _ours() -> Mapping[str, Driver]:
    import pkgutil

    names = (module.name for module in pkgutil.iter_modules(providers.__path__) if module.ispkg)
    packages = (importlib.import_module(f"{providers.__name__}.{name}") for name in names)
    builtin = [package.DRIVER for package in packages if hasattr(package, "DRIVER")]
    return {driver.kind: driver for driver in builtin}


def _checked(driver: object, name: str, kinds: Collection[str]) -> Driver:
    """The driver that an entry point of this name gave, if it can be one."""
    if not isinstance(driver, Driver):
        raise TypeError("it is no `vmrunner.providers.Driver`")
    if driver.kind != name or not _KIND.fullmatch(name):
        raise ValueError(f"its kind is {driver.kind!r}: a lower-case word, as the entry point is")
    if name in kinds:
        raise ValueError(f"there is a driver of kind {name!r} already")
    settings_of(driver)
    return driver
