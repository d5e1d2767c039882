"""Which providers there are: those of the configuration, and those that it dropped while VMs of
theirs are open."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from vmrunner.config import settings as config
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.providers import registry
from vmrunner.providers.retired import RetiredProvider, kept, present

if TYPE_CHECKING:
    from vmrunner.model import Scope
    from vmrunner.providers import Provider
    from vmrunner.runtime.app import App

log = logging.getLogger("vmrunner")

#: What no process can change while it serves a ledger.
_FIXED: Final[Mapping[str, Callable[[Settings], object]]] = {
    "database.url": config.database_url,
    "installation": lambda settings: settings.installation,
    "secret_key": lambda settings: settings.secret_key,
}


def opened(app: App) -> tuple[dict[str, Provider], dict[str, VmrunnerError]]:
    """All that can be opened, and why the others cannot."""
    found: dict[str, Provider] = {}
    broken: dict[str, VmrunnerError] = {}
    for name in (*app.settings.providers, *_dropped(app)):
        try:
            found[name] = app.provider(name)
        except VmrunnerError as error:
            broken[name] = error
    return found, broken


def former(app: App, name: str) -> RetiredProvider:
    """A provider that is not in the configuration any more: any that verified the scopes of its
    rows, as after a renaming; for the others one is opened by what the scopes tell. ConfigError
    where these credentials do not reach them."""
    scopes = _dropped(app).get(name, set())
    drivers = [one for one in _configured(app, scopes) if one.scopes & scopes]
    left = scopes - _reached(drivers)
    for kind, account in sorted({(scope.kind, scope.account) for scope in left}):
        first = min(scope for scope in left if (scope.kind, scope.account) == (kind, account))
        driver = registry.find(kind)
        told = driver.told if driver is not None else {}
        options = {option: getattr(first, part) for option, part in told.items()}
        drivers.append(app.open_kind(kind, name, options))
    lost = scopes - _reached(drivers)
    if lost or not scopes:
        where = f", and VMs of it are open in {', '.join(map(str, sorted(lost)))}" if lost else ""
        raise ConfigError(
            f"providers.{name}: it is not in the configuration{where}",
            hint="put it back until they are gone" if lost else "",
        )
    return RetiredProvider(name, drivers, None)


def _configured(app: App, scopes: set[Scope]) -> Iterator[Provider]:
    """Those of the kinds of these scopes that can be opened."""
    kinds = {scope.kind for scope in scopes}
    for name, said in app.settings.providers.items():
        if said.kind in kinds:
            with contextlib.suppress(VmrunnerError):  # it is told where it is asked for itself
                yield app.provider(name)


def _reached(drivers: Iterable[Provider]) -> set[Scope]:
    return {scope for driver in drivers for scope in driver.scopes}


def renewed(app: App, settings: Settings, old: Mapping[str, Provider]) -> dict[str, Provider]:
    """Let `wiring` take other settings, while `old` are in use; returns what is to be used from
    now on. Raises ConfigError, and then nothing has changed."""
    before = app.settings
    for field, fixed in _FIXED.items():
        if fixed(settings) != fixed(before):
            raise ConfigError(
                f"{field}: it cannot change while the ledger is served",
                hint="set it back, or restart",
            )
    same = {name for name, said in settings.providers.items() if before.providers.get(name) == said}
    new: dict[str, Provider] = {}
    for name in same & old.keys():  # one that could not be opened before stays left out
        driver = present(old[name])
        if driver is not None:
            new[name] = driver
    app.use(settings, new)
    try:
        new |= {name: app.provider(name) for name in settings.providers if name not in same}
        providers = kept(old, new, app.ledger.instances.open())
    except BaseException:
        app.use(before, old)
        raise
    return providers


def _dropped(app: App) -> dict[str, set[Scope]]:
    """The scopes of open rows, of VMs and of images' builders, whose provider is not in the
    configuration any more."""
    found: dict[str, set[Scope]] = {}
    try:
        vms = [(row.provider, row.scope) for row in app.ledger.instances.open()]
        builders = [(row.provider, row.scope) for row in app.ledger.images.open()]
        for provider, scope in (*vms, *builders):
            if provider not in app.settings.providers:
                found.setdefault(provider, set()).add(scope)
    except VmrunnerError as error:
        log.warning("%s", error)
    return found
