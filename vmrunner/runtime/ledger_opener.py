"""The ledger of one configuration, opened when it is first asked for."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from vmrunner.config import settings as config
from vmrunner.config.settings import Paths, Settings
from vmrunner.errors import VmrunnerError
from vmrunner.lib import database_url

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


class LedgerOpener:
    """Opens one ledger, once. What it takes of the settings never changes while it is served."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._settings = settings
        self._paths = paths
        self._lock = threading.RLock()
        self._ledger: Ledger | None = None
        self._make = False

    def open(self, *, make: bool = False) -> Ledger:
        """The ledger, open; SQLite is made and upgraded on the way. `make`: from now on also a
        ledger that was named by hand and is missing. Who only looks makes none: it may be
        mistyped."""
        from vmrunner.ledger import Ledger

        with self._lock:
            self._make = self._make or make
            if self._ledger is None:
                secret = self._settings.secret_key
                ledger = self._ledger = Ledger.open(
                    config.database_url(self._settings),
                    data_dir=self._paths.data,
                    secret_key=secret.get_secret_value() if secret else None,
                    installation=self._settings.installation,
                    make=self._make,
                )
                # A handle may open it again after `close`: then it closes with the last of them.
                weakref.finalize(self, ledger.close)
            return self._ledger

    @property
    def installation(self) -> str:
        """Return the installation, by which resources are ours. It lies beside the ledger too, and
        what is past its deadline is ended by it when there is no ledger to ask."""
        from vmrunner.lib import local_files

        try:
            return self.open().installation
        except VmrunnerError:
            known = self._settings.installation or local_files.read(
                self._paths.data / "installation"
            )
            if known is None:
                raise
            return known

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
