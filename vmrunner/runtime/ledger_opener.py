"""The ledger of one configuration, opened when it is first asked for."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.config import paths as config
from vmrunner.config.paths import Paths
from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.lib import database_url

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.ledger import Ledger


#: A database that has not answered for so many seconds is not asked again for a while: one command
#: asks for the ledger many times, and kills what is past its deadline without it.
SILENT_AFTER: Final = 1.0
SILENCE_KEPT: Final = 10.0


class LedgerOpener:
    """Opens one ledger, once. What it takes of the settings never changes while it is served.
    `monotonic`: seconds that only go up."""

    def __init__(
        self, settings: Settings, paths: Paths, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._silent: tuple[LedgerError, float] | None = None  # what it was, and until when
        self._paths = paths
        self._lock = threading.RLock()
        self._ledger: Ledger | None = None
        self._make = False

    def open(self, *, make: bool = False) -> Ledger:
        """The ledger, open; SQLite is made and upgraded on the way. `make`: from now on also a
        ledger that was named by hand and is missing. Who only looks makes none: it may be
        mistyped."""
        with self._lock:
            self._make = self._make or make
            if self._ledger is None:
                began = self._monotonic()
                if self._silent is not None and began < self._silent[1]:
                    raise self._silent[0]
                try:
                    ledger = self._ledger = self._opened()
                except LedgerError as error:
                    now = self._monotonic()
                    self._silent = (
                        (error, now + SILENCE_KEPT) if now - began > SILENT_AFTER else None
                    )
                    raise
                # A handle may open it again after `close`: then it closes with the last of them.
                weakref.finalize(self, ledger.close)
            return self._ledger

    def _opened(self) -> Ledger:
        from vmrunner.ledger import Ledger

        secret = self._settings.secret_key
        return Ledger.open(
            config.database_url(self._settings),
            data_dir=self._paths.data,
            secret_key=secret.get_secret_value() if secret else None,
            installation=self._settings.installation,
            make=self._make,
        )

    @property
    def installation(self) -> str:
        """The installation, by which resources are ours. It lies beside the ledger too: what is
        past its deadline ends by it when there is no ledger to ask."""
        from vmrunner.lib import local_files

        try:
            return self.open().installation
        except VmrunnerError:
            installation = self._settings.installation or local_files.read(
                self._paths.data / "installation"
            )
            if installation is None:
                raise
            return installation

    @property
    def shown(self) -> str:
        """URL of the ledger, without what is secret in it."""
        return database_url.shown(config.database_url(self._settings))

    def close(self) -> None:
        """Close it, if it is open."""
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None
