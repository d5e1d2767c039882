"""Engines that serve a ledger, at which providers; and the start of one in the background."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.config import sources
from vmrunner.errors import ConfigError, LedgerError
from vmrunner.lib import database_url, ids, private_dirs, process
from vmrunner.model import STARTING, Process

if TYPE_CHECKING:
    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner")

SERVE: Final = "serve"  # engines that stay, or stay until all is done
BACKGROUND: Final = "background"
SUBMITTER: Final = "submitter"  # no engine: a process whose build another host's engine drives
IMAGE_MAKER: Final = "image"  # no engine: a process that makes a template
_NO_ENGINE: Final = frozenset({SUBMITTER, IMAGE_MAKER})
_STAYING: Final = frozenset({SERVE, BACKGROUND, STARTING})
_KEPT: Final = 30 * 86_400.0  # so long the settings of background engines are kept, in seconds


def one_host(ledger: Ledger) -> bool:
    """True if the ledger is a file, so that all who serve it are on this host."""
    return ledger.url.startswith(database_url.SQLITE)


def served(
    ledger: Ledger,
    providers: Collection[str] = (),
    *,
    staying: bool = False,
    here: bool = False,
) -> bool:
    """True if engines of other processes serve this ledger, and these providers. `staying`: such as
    do not end with a build of their own. `here`: those of this process count too.

    A process that lives is not enough: its engine may have been closed, or hang. To be wrong here
    costs one engine too many, which is harmless; the other way a build would wait for ever.
    """
    me, now = process.current(), ledger.engines.now()
    members = ledger.engines.list()
    up = {m.process for m in members if m.kind not in {STARTING, *_NO_ENGINE}}
    from vmrunner.engine.membership import beats, seems_alive

    serving = [
        member
        for member in members
        if (here or member.process != me)
        and member.kind not in _NO_ENGINE
        and not (member.kind == STARTING and member.process in up)
        and (member.kind in _STAYING or not staying)
        and not member.outdated
        and beats(member, now)
        and seems_alive(member, now, one_host=one_host(ledger))
    ]
    available = frozenset().union(*(member.providers for member in serving))
    return bool(serving) and available.issuperset(providers)


def since(ledger: Ledger) -> float | None:
    """Since when the oldest engine serves that stays and lives; None: there is none."""
    from vmrunner.engine.membership import seems_alive

    now = ledger.engines.now()
    staying = [
        member.joined_at - member.ahead
        for member in ledger.engines.list()
        if member.kind in _STAYING
        and not member.outdated
        and seems_alive(member, now, one_host=one_host(ledger))
    ]
    return min(staying, default=None)


class BackgroundEngines:
    """Engines that outlive this process, each in a session of its own, which end when nothing is
    left to do. `program` is how this one is started again."""

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        settings: Callable[[], Settings],
        paths: Paths,
        program: Sequence[str],
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._paths = paths
        self._program = program

    @property
    def log(self) -> Path:
        """Path of the log in which they say what goes wrong."""
        return self._paths.engine_log

    def ensure(self, *providers: str) -> None:
        """See to it that an engine which serves these providers outlives this process: start one
        unless one is there. Those that our configuration does not have, an engine that we start
        would not have either."""
        ours = set(providers) & self._settings().providers.keys()
        try:
            is_served = served(self._ledger(), ours, staying=True)
        except LedgerError as error:
            log.warning("%s", error)
            is_served = False  # it may be back before the engine is up
        if not is_served:
            self.spawn()

    def spawn(self) -> None:
        """Start one. Raises ConfigError when it cannot be started."""
        settings, data = self._settings(), self._paths.data
        secret = settings.secret_key
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(sources.PREFIX) or name in sources.NOT_SETTINGS
        }
        if secret is not None:
            environ["VMRUNNER_SECRET_KEY"] = secret.get_secret_value()
        try:
            private_dirs.make(data)
            # It runs elsewhere, where a project's file would not be found: it gets them whole.
            environ["VMRUNNER_CONFIG"] = str(_settings(data, sources.dump(settings)))
            log_file = _private(self.log, os.O_APPEND)
            try:
                child = subprocess.Popen(
                    [*self._program, "serve", "--until-idle"],
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    env=environ,
                    cwd="/",
                    start_new_session=True,
                )
            finally:
                os.close(log_file)
            started = process.of(
                child.pid
            )  # one that ended at once is there until it is waited for
            # It must be waited for: it would stay a zombie as long as we live.
            threading.Thread(target=child.wait, name="background-engine", daemon=True).start()
        except OSError as error:
            raise ConfigError(
                f"the background engine cannot be started: {error}",
                hint=f"see who owns {data}, and its room; or run vmrunner serve",
            ) from None
        self._announce(started, settings.providers)

    def _announce(self, started: Process, providers: Iterable[str]) -> None:
        """Join the ledger in the new engine's name, so that the next process to look does not start
        another before it is up."""
        try:
            engines = self._ledger().engines
            engines.join(ids.engine_id(), started, STARTING, time.time(), providers)
        except LedgerError as error:
            log.warning("%s", error)


def _settings(data: Path, text: str) -> Path:
    """A file with these settings. It is named by what is in it and never changes: engines of other
    settings may be reading theirs."""
    path = data / f"engine-{hashlib.sha256(text.encode()).hexdigest()[:12]}.toml"
    draft = data / f".{path.name}.{os.getpid()}"
    try:
        with os.fdopen(_private(draft, os.O_TRUNC), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    for old in data.glob("engine*.toml"):
        if old.stat().st_mtime < time.time() - _KEPT:
            old.unlink(missing_ok=True)
    return path


def _private(path: Path, how: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
