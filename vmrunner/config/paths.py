"""Paths and URLs that follow from `Settings`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import platformdirs

from vmrunner.lib import database_url as databaseurl
from vmrunner.lib.database_url import SQLITE

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """Paths of this host. `data` belongs to one ledger, `cache` to the user."""

    data: Path
    cache: Path

    @property
    def ledger(self) -> Path:
        return self.data / "ledger.db"

    @property
    def sources(self) -> Path:
        """Packed sources, one `<build>.tar` each, until the build ends."""
        return self.data / "sources"

    @property
    def artifacts(self) -> Path:
        """Return the directory of artifacts, with one directory a build."""
        return self.data / "artifacts"

    @property
    def store(self) -> Path:
        """Return the directory of the store, unless the configuration names another."""
        return self.data / "store"

    @property
    def wake(self) -> Path:
        return self.data / "wake"

    @property
    def engine_log(self) -> Path:
        """Return the log of background engines."""
        return self.data / "engine.log"

    def state(self, kind: str) -> Path:
        """Return the directory in which the providers of one kind keep their machines."""
        return self.data / kind


def database_url(settings: Settings) -> str:
    """The ledger's URL: as configured, else SQLite under the XDG data directory."""
    if settings.database.url:
        return settings.database.url
    return f"{SQLITE}{platformdirs.user_data_path('vmrunner') / 'ledger.db'}"


def paths(settings: Settings) -> Paths:
    """Everything of one ledger lies together: the default one's under the XDG data directory, of a
    SQLite file that was named in `FILE.d` beside it, and of a server in a directory per URL."""
    data = platformdirs.user_data_path("vmrunner")
    url = settings.database.url
    if url.startswith(SQLITE):
        file = Path(databaseurl.file(url))
        if file != data / "ledger.db":
            data = file.with_name(file.name + ".d")
    elif url:
        where = databaseurl.server(url)
        name = f"{where.host}:{where.port or ''}{where.path}?{where.query}"
        data = data / "servers" / hashlib.sha256(name.encode()).hexdigest()[:12]
    return Paths(data=data, cache=cache_path())


def store_url(settings: Settings) -> str:
    """The store's URL: as configured, else a directory beside the ledger."""
    return settings.store.url or f"file://{quote(str(paths(settings).store))}"


def cache_path() -> Path:
    """Return the directory of images, whatever ledger is in use."""
    return platformdirs.user_cache_path("vmrunner")
