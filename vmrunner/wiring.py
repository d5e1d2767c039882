"""Where the parts are joined: settings → ledger, providers, sessions, engine.

Nothing is opened before it is asked for. Tests join other parts here, by subclassing.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vmrunner import config, fleet, ids, process
from vmrunner.config import Paths, Settings
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.model import Limits

if TYPE_CHECKING:
    from vmrunner.desk import EngineLimits, Orders
    from vmrunner.engine import Engine
    from vmrunner.following import Sessions
    from vmrunner.ledger import Ledger
    from vmrunner.ledger.values import Member
    from vmrunner.providers import Provider

log = logging.getLogger("vmrunner")

SERVE: Final = "serve"  # engines that stay, or stay until all is done
BACKGROUND: Final = "background"
_STAYING: Final = frozenset({SERVE, BACKGROUND})
SUBMITTER: Final = "submitter"  # no engine: a process whose build another host's engine drives
_BEAT: Final = 10.0  # seconds
_LEASE: Final = 60.0  # seconds without a beat after which an engine elsewhere counts as gone


class Wiring:
    """The parts of one configuration. Close it when done."""

    #: How this program is started again, for an engine in the background.
    program: ClassVar[Sequence[str]] = (sys.executable, "-m", "vmrunner")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.paths: Paths = config.paths(settings)
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
            )
            # A handle may open it again after `close`: then it closes with the last of them.
            weakref.finalize(self, ledger.close)
            return ledger

    def provider(self, name: str) -> Provider:
        """The driver of one configured provider."""
        with self._lock:
            if name not in self._providers:
                known = name in self.settings.providers
                driver = self.open_provider(name) if known else fleet.former(self, name)
                self._providers[name] = driver
            return self._providers[name]

    def open_provider(self, name: str) -> Provider:
        """A new driver. `ConfigError` when its options or its SDK are not as they must be."""
        said = self.settings.providers[name]
        return self.open_kind(said.kind, name, self.settings.provider_options(name))

    def open_kind(self, kind: str, name: str, options: Mapping[str, Any]) -> Provider:
        """The same of any kind and options."""
        from vmrunner import providers

        if kind == "qemu":
            options = {
                **options,
                "state_dir": self.paths.state(kind),
                "cache_dir": self.paths.cache,
                "installation": self.installation,
                "current": _current_image,
            }
        return providers.load(kind, name, **options)

    @property
    def installation(self) -> str:
        """Whose resources are ours. It lies beside the ledger too, and what is past its deadline
        is ended by it when there is no ledger to ask."""
        from vmrunner.ledger import files

        try:
            return self.ledger.installation
        except VmrunnerError:
            known = self.settings.installation or files.read(self.paths.data / "installation")
            if known is None:
                raise
            return known

    def providers(self) -> dict[str, Provider]:
        """All that can be opened, and what the configuration dropped while VMs of it are open.
        One that cannot be opened must not keep the others from working."""
        opened, broken = fleet.opened(self)
        for name, error in broken.items():
            log.warning("provider %s is left out: %s", name, error)
        return opened

    def renew(self, settings: Settings, old: Mapping[str, Provider]) -> dict[str, Provider]:
        """Take other settings, while `old` are in use; returns what is to be used from now on.
        Raises ConfigError, and then nothing has changed."""
        return fleet.renewed(self, settings, old)

    def use(self, settings: Settings, providers: Mapping[str, Provider]) -> None:
        """From now on, these."""
        with self._lock:
            self.settings = settings
            self._providers = dict(providers)

    def sessions(self) -> Sessions:
        """What drives a build on its VM."""
        from vmrunner.session import Session

        return Session

    def orders(self) -> Orders:
        """What makes the order for an instance."""
        from vmrunner.orders import Maker

        return Maker(self.ledger.installation, self.ledger.generation)

    def limits(self) -> EngineLimits:
        from vmrunner.desk import EngineLimits

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
        from vmrunner.engine import Engine

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

    def tidy(self) -> None:
        """Nightly: remove local images that a newer one of their name replaced and nobody uses."""
        from vmrunner.providers.qemu import imagestore

        keep = self.settings.reaper.keep_images
        for image in imagestore.prune(self.paths.cache, now=time.time(), keep=keep):
            log.info("retention: image %s (%s) is removed", image.name, image.hash[:12])

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
        return config.database_url(self.settings).startswith(config.SQLITE)

    def served(self, *, staying: bool = False) -> bool:
        """Does an engine of another process serve this ledger? `staying`: one that does not end
        with a build of its own."""
        me = process.current()
        return any(
            self._lives(member)
            for member in self.ledger.engines.list()
            if member.process != me
            and member.kind != SUBMITTER
            and (member.kind in _STAYING or not staying)
        )

    def serving_since(self) -> float | None:
        """Since when the oldest engine serves that stays and lives; None: there is none."""
        staying = [m for m in self.ledger.engines.list() if m.kind in _STAYING and self._lives(m)]
        return min((member.joined_at for member in staying), default=None)

    def _lives(self, member: Member) -> bool:
        lives = process.alive(member.process, one_host=self.one_host)
        return time.time() - member.seen_at < _LEASE if lives is None else lives

    def ensure_background(self) -> None:
        """See to it that an engine outlives this process: start one unless one is there."""
        if not self.served(staying=True):
            self.spawn_engine()

    def spawn_engine(self) -> None:
        """Start an engine in a session of its own, which ends when nothing is left to do."""
        from vmrunner import configfile

        data = self.paths.data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        # It runs elsewhere, where a project's file would not be found: it gets the settings whole.
        settings = data / "engine.toml"
        log_file = _private(self.paths.engine_log, os.O_APPEND)
        try:
            with os.fdopen(_private(settings, os.O_TRUNC), "w") as file:
                file.write(configfile.dump(self.settings))
            environ = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(configfile.PREFIX) or name in configfile.NOT_SETTINGS
            }
            if self.settings.secret_key is not None:
                environ["VMRUNNER_SECRET_KEY"] = self.settings.secret_key.get_secret_value()
            child = subprocess.Popen(
                [*self.program, "serve", "--until-idle"],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                env=environ | {"VMRUNNER_CONFIG": str(settings)},
                cwd="/",
                start_new_session=True,
            )
            # In its name, so that whoever asks next does not start another before it is up.
            who = process.of(child.pid)
            self.ledger.engines.join(ids.engine_id(), who, BACKGROUND, time.time())
        except OSError as error:
            raise ConfigError(f"the background engine cannot be started: {error}") from None
        finally:
            os.close(log_file)

    @contextmanager
    def helped(self, kind: str | None) -> Iterator[Help]:
        """While inside, `ensure` and `wake` see to it that builds are served. See `Help`."""
        helper = Help(self, kind)
        try:
            yield helper
        finally:
            helper.close()


class Help:
    """Sees to it that an engine serves the ledger: one that lives elsewhere, else one in this
    process, of this `kind`; with None a background one. Call `ensure` in every wait: it is cheap.
    """

    CHECK: Final = 2.0  # seconds between looks at the others

    def __init__(self, wiring: Wiring, kind: str | None) -> None:
        self._wiring = wiring
        self._kind = kind
        self._engine: Engine | None = None
        self._stop = threading.Event()
        self._checked = self._beaten = float("-inf")
        self._member: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def own(self) -> bool:
        """Is it one in this process?"""
        return self._engine is not None

    def ensure(self) -> None:
        """Start an engine when none lives."""
        now = time.monotonic()
        if self._engine is not None or now - self._checked < self.CHECK:
            return
        self._checked = now
        if self._wiring.served():
            self._show_up(now)
            return
        if self._kind is None:
            self._wiring.spawn_engine()
            return
        engine = self._wiring.engine(self._kind)
        self._engine = engine
        self._stop.clear()
        self._thread = threading.Thread(
            target=engine.run, args=(self._stop.is_set,), name="engine", daemon=True
        )
        self._thread.start()

    def waiting(self, build: str) -> str:
        """Why a build is still queued, as far as our own engine knows."""
        return self._engine.waiting.get(build, "") if self._engine is not None else ""

    def _show_up(self, now: float) -> None:
        """Where engines on other hosts cannot see that this process lives, tell them."""
        if self._kind is None or self._wiring.one_host or now - self._beaten < _BEAT:
            return
        self._beaten = now
        engines, at = self._wiring.ledger.engines, time.time()
        if self._member is None or not engines.beat(self._member, at):
            self._member = self._member or ids.engine_id()
            engines.join(self._member, process.current(), SUBMITTER, at)

    def wake(self) -> None:
        """Something was submitted or wished: whoever serves should look at once."""
        from vmrunner import wake

        if self._engine is not None:
            self._engine.wake()
        else:
            wake.poke(self._wiring.paths.wake)

    def close(self) -> None:
        """Let the own engine go; what belongs to the ledger goes on in its VM."""
        if self._member is not None:
            self._wiring.ledger.engines.leave(self._member)
            self._member = None
        if self._engine is None or self._thread is None:
            return
        self._stop.set()
        self._engine.wake()
        self._thread.join(timeout=5)
        self._engine.close()
        self._engine = None


def _current_image() -> str:
    """Looked up only where something is to be launched: reaping must not need it."""
    from vmrunner import images

    return images.current()


def _private(path: Path, how: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
