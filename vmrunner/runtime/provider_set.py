"""The providers there are: those of the configuration, and those that it dropped while VMs of
theirs are open."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from vmrunner.config import paths as config
from vmrunner.errors import ConfigError, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.core.boxes import Box
    from vmrunner.ledger import Ledger
    from vmrunner.lib.channels import Channel
    from vmrunner.model import Instance, Scope
    from vmrunner.providers import Provider
    from vmrunner.providers.call_counts import ProviderCalls
    from vmrunner.providers.retired_providers import RetiredProvider

log = logging.getLogger("vmrunner")

#: What no process can change while it serves a ledger.
_FIXED: Final[Mapping[str, Callable[[Settings], object]]] = {
    "database.url": config.database_url,
    "installation": lambda settings: settings.installation,
    "secret_key": lambda settings: settings.secret_key and settings.secret_key.get_secret_value(),
    "store": lambda settings: settings.store,
    "server.listen": lambda settings: settings.server.listen,
}


class ProviderSet:
    """The drivers of one configuration, each opened when it is first asked for. `open` makes the
    one of a configured name, `open_kind` the one of any kind, name and options."""

    def __init__(
        self,
        settings: Settings,
        ledger: Callable[[], Ledger],
        open: Callable[[str], Provider],  # noqa: A002 - what it does
        open_kind: Callable[[str, str, Mapping[str, Any]], Provider],
    ) -> None:
        self.settings = settings  # `renew` replaces them
        self._ledger = ledger
        self._open = open
        self._open_kind = open_kind
        self._lock = threading.RLock()
        self._drivers: dict[str, Provider] = {}

    @cached_property
    def calls(self) -> ProviderCalls:
        """Counts of the calls of all drivers."""
        from vmrunner.providers.call_counts import ProviderCalls

        return ProviderCalls()

    def get(self, name: str) -> Provider:
        """The driver of one provider. Raises ConfigError when its options or its SDK are not as
        they must be."""
        with self._lock:
            if name not in self._drivers:
                configured = name in self.settings.providers
                self._drivers[name] = (
                    self.calls.counted(self._open(name)) if configured else self._former(name)
                )
            return self._drivers[name]

    def reaching(self, name: str, scope: Scope) -> Provider:
        """The driver that has this scope: of this name, or any, since the name may be another
        account's by now; where none has it, the one of this name."""
        from vmrunner.providers.retired_providers import driver_at

        named = self.get(name)
        found = (driver_at(driver, scope) for driver in chain((named,), self._configured({scope})))
        return next((driver for driver in found if driver is not None), named)

    def channel_to(self, instance: Instance) -> Channel:
        """The channel to its sshd; only one that needs its provider opens that."""
        from vmrunner.providers import registry

        return registry.channel(
            instance.scope.kind, lambda: self.reaching(instance.provider, instance.scope)
        )

    def box_of(self, instance: Instance) -> Box:
        """The box that realises the container's image in it, as `channel_to`."""
        from vmrunner.providers import registry

        return registry.box(
            instance.scope.kind, lambda: self.reaching(instance.provider, instance.scope)
        )

    def reaches(self, instance: Instance) -> bool:
        """False: it is a VM of another host, which only that one's processes reach."""
        from vmrunner.providers import registry
        from vmrunner.providers.retired_providers import driver_at

        if not registry.is_host_bound(instance.scope.kind):
            return True
        driver = self.reaching(instance.provider, instance.scope)
        return driver_at(driver, instance.scope) is not None

    def opened(self) -> tuple[dict[str, Provider], dict[str, VmrunnerError]]:
        """All that can be opened, and why the others cannot: those of the configuration, and what
        it dropped while VMs of it are open."""
        found: dict[str, Provider] = {}
        broken: dict[str, VmrunnerError] = {}
        for name in (*self.settings.providers, *self._dropped()):
            try:
                found[name] = self.get(name)
            except VmrunnerError as error:
                broken[name] = error
        return found, broken

    def all(self) -> dict[str, Provider]:
        """All that can be opened. One that cannot must not keep the others from working."""
        found, broken = self.opened()
        for name, error in broken.items():
            log.warning("provider %s is left out: %s", name, error)
        return found

    def named(self, wanted: str | None) -> str | None:
        """The configured name for what a user calls a provider; None: all are meant."""
        return None if wanted is None else self.settings.provider(wanted)

    def time_at(self, name: str, scope: Scope | None = None, *, ask: bool = False) -> float:
        """The clock that the VMs of a provider are timed by, those of one scope of it where its
        drivers differ, as far as it can be had; else ours.
        `ask`: an answer of the cloud tells its time, and whose the scope is, so get one first."""
        from vmrunner.providers.retired_providers import clock_at

        if not ask and self._timed_here(name):
            return time.time()
        try:
            driver = self.reaching(name, scope) if ask and scope is not None else self.get(name)
            if ask:
                _ = driver.scopes
            return clock_at(driver, scope)
        except VmrunnerError:
            return time.time()

    def _timed_here(self, name: str) -> bool:
        """True of a provider whose VMs are timed by this machine's clock, which needs no driver."""
        from vmrunner.providers import registry

        table = self.settings.providers.get(name)
        driver = None if table is None else registry.find(table.kind)
        return driver is not None and driver.host_clock

    def renew(self, settings: Settings, old: Mapping[str, Provider]) -> dict[str, Provider]:
        """Take other settings, while `old` are in use; returns what is to be used from now on.
        Raises ConfigError, and then nothing has changed."""
        from vmrunner.providers.retired_providers import kept, present

        before = self.settings
        for field, fixed in _FIXED.items():
            if fixed(settings) != fixed(before):
                raise ConfigError(
                    f"{field}: it cannot change while the ledger is served",
                    hint="set it back, or restart",
                )
        same = {n for n, table in settings.providers.items() if before.providers.get(n) == table}
        new: dict[str, Provider] = {}
        for name in same & old.keys():  # one that could not be opened before stays left out
            driver = present(old[name])
            if driver is not None:
                new[name] = driver
        self._use(settings, new)
        try:
            new |= {name: self.get(name) for name in settings.providers if name not in same}
            providers = kept(old, new, self._ledger().instances.open())
        except BaseException:
            self._use(before, old)
            raise
        return providers

    def close(self) -> None:
        """Forget them all."""
        self._drivers.clear()

    # --- within ---

    def _use(self, settings: Settings, drivers: Mapping[str, Provider]) -> None:
        with self._lock:
            self.settings = settings
            self._drivers = dict(drivers)

    def _former(self, name: str) -> RetiredProvider:
        """A provider that is not in the configuration any more: any that verified the scopes of
        its rows, as after a renaming; for the others one is opened by what the scopes tell.
        ConfigError where these credentials do not reach them."""
        from vmrunner.providers import registry
        from vmrunner.providers.retired_providers import RetiredProvider

        scopes = self._dropped().get(name, set())
        drivers = [candidate for candidate in self._configured(scopes) if candidate.scopes & scopes]
        unreached = scopes - _reached(drivers)
        for kind, account in sorted({(scope.kind, scope.account) for scope in unreached}):
            first = min(
                scope for scope in unreached if (scope.kind, scope.account) == (kind, account)
            )
            driver = registry.find(kind)
            scope_options = driver.told if driver is not None else {}
            options = {option: getattr(first, part) for option, part in scope_options.items()}
            drivers.append(self.calls.counted(self._open_kind(kind, name, options)))
        lost = scopes - _reached(drivers)
        if lost or not scopes:
            lost_scopes = ", ".join(map(str, sorted(lost)))
            where = f", and VMs of it are open in {lost_scopes}" if lost else ""
            raise ConfigError(
                f"providers.{name}: it is not in the configuration{where}",
                hint="put it back until they are gone" if lost else "",
            )
        return RetiredProvider(name, drivers, None)

    def _configured(self, scopes: set[Scope]) -> Iterator[Provider]:
        """Yield the configured providers of the kinds of these scopes that can be opened."""
        kinds = {scope.kind for scope in scopes}
        for name, table in self.settings.providers.items():
            if table.kind in kinds:
                with contextlib.suppress(VmrunnerError):  # raised where it is asked for itself
                    yield self.get(name)

    def _dropped(self) -> dict[str, set[Scope]]:
        """The scopes of open rows, of VMs and of images' builders, whose provider is not in the
        configuration any more."""
        found: dict[str, set[Scope]] = {}
        try:
            ledger = self._ledger()
            vms = [(row.provider, row.scope) for row in ledger.instances.open()]
            builders = [(row.provider, row.scope) for row in ledger.images.open()]
            for provider, scope in (*vms, *builders):
                if provider not in self.settings.providers:
                    found.setdefault(provider, set()).add(scope)
        except VmrunnerError as error:
            log.warning("%s", error)
        return found


def _reached(drivers: Iterable[Provider]) -> set[Scope]:
    return {scope for driver in drivers for scope in driver.scopes}
