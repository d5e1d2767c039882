"""Where the parts are joined: settings → ledger, providers, sessions, engine.

Nothing is opened before it is asked for. Tests join other parts here, by subclassing.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from vmrunner.config import settings as config
from vmrunner.config.settings import Paths, Settings
from vmrunner.errors import VmrunnerError
from vmrunner.lib import database_url, process
from vmrunner.model import Limits
from vmrunner.runtime import background, provider_set

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits, MakesOrders
    from vmrunner.engine.engine import Engine
    from vmrunner.engine.sessions import Sessions
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider
    from vmrunner.providers.port import Need
    from vmrunner.reaper.report import Report
    from vmrunner.reaper.retention import Removal
    from vmrunner.runtime.engine_host import EngineHost

log = logging.getLogger("vmrunner")


class App:
    """The parts of one configuration. Close it when done."""

    #: How this program is started again, for an engine in the background.
    program: ClassVar[Sequence[str]] = (sys.executable, "-m", "vmrunner")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.paths: Paths = config.paths(settings)
        #: Whether a ledger that was named by hand is made when it is missing. Who only looks does
        #: not: it may be mistyped.
        self.makes_ledger = False
        self._lock = threading.RLock()
        self._providers: dict[str, Provider] = {}

    # --- parts ---

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, open; SQLite is made and upgraded on the way."""
        from vmrunner.ledger import Ledger

        with self._lock:
            secret = self.settings.secret_key
            ledger = Ledger.open(
                config.database_url(self.settings),
                data_dir=self.paths.data,
                secret_key=secret.get_secret_value() if secret else None,
                installation=self.settings.installation,
                make=self.makes_ledger,
            )
            # A handle may open it again after `close`: then it closes with the last of them.
            weakref.finalize(self, ledger.close)
            return ledger

    def provider(self, name: str) -> Provider:
        """The driver of one configured provider."""
        with self._lock:
            if name not in self._providers:
                known = name in self.settings.providers
                driver = self.open_provider(name) if known else provider_set.former(self, name)
                self._providers[name] = driver
            return self._providers[name]

    def open_provider(self, name: str) -> Provider:
        """A new driver. `ConfigError` when its options or its SDK are not as they must be."""
        said = self.settings.providers[name]
        return self.open_kind(said.kind, name, self.settings.provider_options(name))

    def open_kind(self, kind: str, name: str, options: Mapping[str, Any]) -> Provider:
        """The same of any kind and options."""
        from vmrunner.providers import registry

        given: Mapping[Need, Callable[[], Any]] = {
            "installation": lambda: self.installation,
            "used": lambda: self._used(kind, name),
            "state_dir": lambda: self.paths.state(kind),
            "cache_dir": lambda: self.paths.cache,
            "current": lambda: _current_image,
        }
        driver = registry.find(kind)
        needs = {need: given[need]() for need in driver.needs} if driver is not None else {}
        return registry.load(kind, name, **options, **needs)

    def _used(self, kind: str, name: str) -> list[str]:
        """Where this provider has VMs or images, or launched so lately that something may be left,
        as far as the ledger can be asked: it may have been configured otherwise then."""
        since = time.time() - self.settings.limits.max_ttl - Limits().newborn
        try:
            scopes = self.ledger.instances.places(name, since) | self.ledger.images.places(name)
        except VmrunnerError:
            return []
        return sorted({scope.place for scope in scopes if scope.kind == kind})

    @property
    def installation(self) -> str:
        """Whose resources are ours. It lies beside the ledger too, and what is past its deadline
        is ended by it when there is no ledger to ask."""
        from vmrunner.lib import local_files

        try:
            return self.ledger.installation
        except VmrunnerError:
            known = self.settings.installation or local_files.read(self.paths.data / "installation")
            if known is None:
                raise
            return known

    def providers(self) -> dict[str, Provider]:
        """All that can be opened, and what the configuration dropped while VMs of it are open.
        One that cannot be opened must not keep the others from working."""
        opened, broken = provider_set.opened(self)
        for name, error in broken.items():
            log.warning("provider %s is left out: %s", name, error)
        return opened

    def renew(self, settings: Settings, old: Mapping[str, Provider]) -> dict[str, Provider]:
        """Take other settings, while `old` are in use; returns what is to be used from now on.
        Raises ConfigError, and then nothing has changed."""
        return provider_set.renewed(self, settings, old)

    def use(self, settings: Settings, providers: Mapping[str, Provider]) -> None:
        """From now on, these."""
        with self._lock:
            self.settings = settings
            self._providers = dict(providers)

    def sessions(self) -> Sessions:
        """What drives a build on its VM."""
        from vmrunner.session import Session

        return Session

    def orders(self) -> MakesOrders:
        """What makes the order for an instance."""
        from vmrunner.engine.orders import OrderFactory

        return OrderFactory(self.ledger.installation, self.ledger.generation)

    def limits(self) -> EngineLimits:
        from vmrunner.engine.context import EngineLimits

        said = self.settings.limits
        each = {
            name: provider.max_instances
            for name, provider in self.settings.providers.items()
            if provider.max_instances is not None
        }
        return EngineLimits(
            limits=Limits(max_ttl=said.max_ttl, max_instances=said.max_instances),
            each=each,
            log_bytes=said.log_bytes,
            artifact_bytes=said.artifact_bytes,
        )

    def engine(self, kind: str, *, listen: bool = True) -> Engine:
        """A new engine over these parts. `listen`: it can be woken by other processes."""
        from vmrunner.engine.engine import Engine

        return Engine(
            self.ledger,
            self.providers(),
            self.sessions(),
            self.limits(),
            process=process.current(),
            kind=kind,
            paths=self.paths,
            orders=self.orders(),
            listen=listen,
        )

    def retain(self, *, dry_run: bool = False) -> list[Removal]:
        """Remove what has outlived its build for as long as the configuration says, and local
        images that a newer one of their name replaced and that nobody uses, or names."""
        from vmrunner.reaper.retention import retain

        return [
            *retain(
                self.ledger,
                sources=self.paths.sources,
                artifacts=self.paths.artifacts,
                keep=self.settings.reaper.keep_logs,
                now=time.time(),
                dry_run=dry_run,
            ),
            self.tidy(dry_run=dry_run),
        ]

    def tidy(self, *, dry_run: bool = False) -> Removal:
        """The latter alone."""
        from vmrunner.images import retention
        from vmrunner.providers.qemu import local_images
        from vmrunner.providers.settings import LocalSettings
        from vmrunner.reaper.retention import Removal, size_of

        cache, keep = self.paths.cache, self.settings.reaper.keep_images
        configured = {
            said.image
            for said in self.settings.providers.values()
            if isinstance(said, LocalSettings)
        }
        words = {word for word in (*configured, *retention.wanted(self.ledger)) if word}
        found = local_images.images(cache)
        named = {digest for word in words for digest in retention.matching(found, word)}
        old = local_images.replaced(cache, now=time.time(), keep=keep, named=named)
        size = sum(size_of(image.directory) for image in old)
        for image in () if dry_run else old:
            local_images.remove(image)
            log.info("retention: image %s (%s) is removed", image.name, image.hash[:12])
        return Removal("images", len(old), size)

    def end_expired(self, **how: Any) -> Report:
        """Delete all of this installation that is past its deadline by its own tags; no ledger is
        needed. `how`: as `reaper.expired.end` takes it."""
        from vmrunner.reaper import expired

        try:
            ledger = self.ledger
        except VmrunnerError:
            ledger = None
        providers, broken = provider_set.opened(self)
        return expired.delete_expired(
            ledger, providers, self.limits().limits, self.installation, broken=broken, **how
        )

    def close(self) -> None:
        """Close what was opened."""
        if "ledger" in self.__dict__:
            self.ledger.close()
            del self.__dict__["ledger"]
        self._providers.clear()

    # --- who serves this ledger ---

    @property
    def one_host(self) -> bool:
        """Is the ledger a file, so that all who serve it are on this host?"""
        return config.database_url(self.settings).startswith(database_url.SQLITE)

    def served(self, *providers: str, staying: bool = False) -> bool:
        """Do engines of other processes serve this ledger, and these providers? `staying`: such
        as do not end with a build of their own."""
        return background.served(self, providers, staying=staying)

    def serving_since(self) -> float | None:
        """Since when the oldest engine serves that stays and lives; None: there is none."""
        return background.since(self)

    def ensure_background(self, *providers: str) -> None:
        """See to it that an engine which serves these providers outlives this process: start one
        unless one is there."""
        background.ensure(self, providers)

    def spawn_engine(self) -> None:
        """Start an engine in a session of its own, which ends when nothing is left to do."""
        background.spawn(self)

    @contextmanager
    def helped(self, kind: str | None) -> Iterator[EngineHost]:
        """While inside, `ensure` and `wake` see to it that builds are served. See `Help`."""
        from vmrunner.runtime.engine_host import EngineHost

        helper = EngineHost(self, kind)
        try:
            yield helper
        finally:
            helper.close()


def _current_image() -> str:
    """Looked up only where something is to be launched: reaping must not need it."""
    from vmrunner import images

    return images.current()
