"""The composition root: settings → ledger, providers, sessions, engine.

Nothing is opened before it is asked for. Tests join other parts here, by subclassing. Only the
start of a program has an `App`; all else gets the parts that it needs.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vmrunner.config import paths as config
from vmrunner.config.paths import Paths
from vmrunner.errors import VmrunnerError
from vmrunner.lib import process
from vmrunner.runtime.background import SERVE, BackgroundEngines
from vmrunner.runtime.ledger_opener import LedgerOpener
from vmrunner.runtime.provider_set import ProviderSet
from vmrunner.runtime.service_parts import ServiceParts

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.engine.context import EngineLimits, MakesOrders
    from vmrunner.engine.engine import Engine
    from vmrunner.engine.pool_warm_ups import RunsWarmUp, WarmUps
    from vmrunner.engine.sessions import RunsSession, Sessions
    from vmrunner.ledger import Ledger
    from vmrunner.model import Budget, PoolSpec
    from vmrunner.providers import Provider
    from vmrunner.providers.port import Need
    from vmrunner.runtime.engine_host import EngineHost
    from vmrunner.session.job import Reporter, SessionJob
    from vmrunner.session.warm_up import WarmUpJob
    from vmrunner.store import ObjectStore
    from vmrunner.store.build_artifacts import ArtifactFiles
    from vmrunner.store.build_log import BuildLog
    from vmrunner.store.cache_transfer import CachePolicy, CacheTransfer
    from vmrunner.store.source_transfer import SourceTransfer
    from vmrunner.store.uploader import Uploader


#: Seconds since its last heartbeat in which a `serve` counts as one that is there.
SERVING: Final = 60.0
#: What drives a build on its VM: with the SSH library it takes longer to load than all else.
_SESSION: Final = "vmrunner.session.session"


class App:
    """The parts of one configuration. Close it when done."""

    #: How this program is started again, for an engine in the background.
    program: ClassVar[Sequence[str]] = (sys.executable, "-m", "vmrunner")
    #: What starts those.
    background_engines: ClassVar[type[BackgroundEngines]] = BackgroundEngines

    def __init__(self, settings: Settings) -> None:
        self.paths: Paths = config.paths(settings)
        self.ledgers = LedgerOpener(settings, self.paths)
        self.providers = ProviderSet(
            settings, self.ledgers.open, self.open_provider, self.open_kind
        )
        self.background = self.background_engines(
            self.ledgers.open, lambda: self.settings, self.paths, self.program
        )

        self._store: ObjectStore | None = None

    # --- parts ---

    @property
    def settings(self) -> Settings:
        """Settings that hold now: a daemon takes others when it is told to."""
        return self.providers.settings

    @property
    def ledger(self) -> Ledger:
        """The ledger, open."""
        return self.ledgers.open()

    @property
    def store(self) -> ObjectStore:
        """The store, open; nothing is asked of it for that."""
        from vmrunner.store import open_store

        if self._store is None:
            table = self.settings.store
            self._store = open_store(
                config.store_url(self.settings), endpoint=table.endpoint, region=table.region
            )
        return self._store

    def open_provider(self, name: str) -> Provider:
        """A new driver. `ConfigError` when its options or its SDK are not as they must be."""
        table = self.settings.providers[name]
        return self.open_kind(table.kind, name, self.settings.provider_options(name))

    def open_kind(self, kind: str, name: str, options: Mapping[str, Any]) -> Provider:
        """The same of any kind and options."""
        from vmrunner.providers import registry

        given: Mapping[Need, Callable[[], Any]] = {
            "installation": lambda: self.ledgers.installation,
            "used": lambda: self._used(kind, name),
            "state_dir": lambda: self.paths.state(kind),
            "cache_dir": lambda: self.paths.cache,
            "current": lambda: _current_image,
        }
        driver = registry.find(kind)
        needs = {need: given[need]() for need in driver.needs} if driver is not None else {}
        return registry.load(kind, name, **options, **needs)

    def _used(self, kind: str, name: str) -> list[str]:
        """The places where this provider has VMs or images, or launched so lately that something
        may be left, as far as the ledger can be asked: it may have been configured otherwise
        then."""
        from vmrunner.model import Limits

        since = time.time() - self.settings.limits.max_ttl - Limits().newborn
        try:
            scopes = self.ledger.instances.places(name, since) | self.ledger.images.places(name)
        except VmrunnerError:
            return []
        return sorted({scope.place for scope in scopes if scope.kind == kind})

    def sessions(self) -> Sessions:
        """The maker of what drives a build on its VM. A command loads the SSH library only while
        its VM starts."""

        def made(job: SessionJob, reporter: Reporter) -> RunsSession:
            from vmrunner.session.session import Session

            return Session(job, reporter)

        return made

    def warm_ups(self) -> WarmUps:
        """The maker of what prepares a pool's VM for its build."""

        def made(job: WarmUpJob) -> RunsWarmUp:
            from vmrunner.session.warm_up import WarmUp

            return WarmUp(job)

        return made

    def pools(self) -> Mapping[str, PoolSpec]:
        """Return the pools of the configuration."""
        from vmrunner.config.pools import pool_specs

        return pool_specs(self.settings)

    def budgets(self) -> Sequence[Budget]:
        """Return the budgets of the configuration."""
        from vmrunner.config.budgets import budgets

        return budgets(self.settings.budgets)

    def orders(self) -> MakesOrders:
        """Return the factory of orders for instances."""
        from vmrunner.engine.orders import OrderFactory

        return OrderFactory(self.ledger, log_bytes=self.settings.limits.log_bytes)

    def sources(self) -> SourceTransfer:
        """The transfer of sources to the store and back."""
        from vmrunner.store.source_transfer import SourceTransfer

        return SourceTransfer(self.ledger, lambda: self.store, self.paths.sources)

    def caches(self) -> CacheTransfer:
        """The transfer of caches to the store and back."""
        from vmrunner.store.cache_transfer import CacheTransfer

        return CacheTransfer(
            self.ledger, lambda: self.store, self.paths.sources, self._cache_policy
        )

    def _cache_policy(self) -> CachePolicy:
        from vmrunner.store.cache_transfer import CachePolicy

        table = self.settings.caches
        return CachePolicy(
            scope=table.scope,
            fallback=table.fallback,
            most=table.max_bytes,
            tenant_most=table.tenant_bytes,
            total_most=max(table.total_bytes, table.tenant_bytes),
        )

    def log(self, build: str) -> BuildLog:
        """Return the log of a build, wherever it lies."""
        from vmrunner.store.build_log import BuildLog

        return BuildLog(self.ledger, lambda: self.store, build)

    def artifact_files(self, build: str) -> ArtifactFiles:
        """Return the artifacts of a build, wherever they lie."""
        from vmrunner.store.build_artifacts import files_of

        return files_of(self.ledger, lambda: self.store, self.paths.artifacts, build)

    def uploader(self) -> Uploader:
        """The uploader of logs, artifacts and caches that builds left."""
        from vmrunner.store.uploader import Uploader

        return Uploader(
            self.ledger,
            lambda: self.store,
            sources=self.paths.sources,
            artifacts=self.paths.artifacts,
            caches=self.caches(),
        )

    def limits(self) -> EngineLimits:
        from vmrunner.engine.context import EngineLimits
        from vmrunner.model import Limits

        table = self.settings.limits
        each = {
            name: provider.max_instances
            for name, provider in self.settings.providers.items()
            if provider.max_instances is not None
        }
        return EngineLimits(
            limits=Limits(max_ttl=table.max_ttl, max_instances=table.max_instances),
            each=each,
            log_bytes=table.log_bytes,
            artifact_bytes=table.artifact_bytes,
        )

    def engine(self, kind: str, *, listen: bool = True) -> Engine:
        """A new engine over these parts. `listen`: it can be woken by other processes."""
        from vmrunner.engine.engine import Engine

        if kind == SERVE:
            importlib.import_module(_SESSION)  # no build of its waits for that
        engine = Engine(
            self.ledger,
            self.providers.all(),
            self.sessions(),
            self.limits(),
            process=process.current(),
            kind=kind,
            paths=self.paths,
            orders=self.orders(),
            listen=listen,
            warm_ups=self.warm_ups(),
            pools=self.pools() if kind == SERVE else {},
            source_of=self.sources().fetch,
            caches_of=self.caches().of,
            load_sessions=_load_sessions,
        )
        if kind == SERVE or self._decides():
            engine.context.budgets = self.budgets()
        return engine

    def _decides(self) -> bool:
        """True if the budgets of our own configuration hold for this ledger: it is this host's, and
        no process serves it."""
        since = time.time() - SERVING
        others = self.ledger.engines.list()
        served = any(member.kind == SERVE and member.seen_at >= since for member in others)
        return self.ledger.url.startswith("sqlite") and not served

    def host(self, kind: str | None) -> EngineHost:
        """The host that ensures that builds are served while this process waits for them."""
        from vmrunner.runtime.engine_host import EngineHost

        return EngineHost(
            kind,
            ledger=self.ledgers.open,
            providers=self.providers,
            background=self.background,
            engine=self.engine,
            wake=self.paths.wake,
            upload=self.uploader,
        )

    def service_parts(self) -> ServiceParts:
        """Return the parts that use cases are called with."""
        return ServiceParts(
            ledgers=self.ledgers,
            providers=self.providers,
            paths=self.paths,
            background=self.background,
            settings=lambda: self.settings,
            limits=self.limits,
            sources=self.sources,
            log=self.log,
            artifact_files=self.artifact_files,
            host=self.host,
            close=self.close,
        )

    def close(self) -> None:
        """Close what was opened."""
        self.ledgers.close()
        self.providers.close()


def _current_image() -> str:
    """Looked up only where something is to be launched: reaping must not need it."""
    from vmrunner import images

    return images.current()


def _load_sessions() -> None:
    importlib.import_module(_SESSION)
