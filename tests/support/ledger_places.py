"""A ledger with its store at a place of its own, for the tests of backup and restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from tests.support.stored import Breaking
from vmrunner.config.paths import Paths
from vmrunner.config.settings import Settings
from vmrunner.ledger import Ledger
from vmrunner.model import ObjectKind
from vmrunner.services.backup import Backup, backup
from vmrunner.services.backup_manifest import BackupManifest
from vmrunner.services.restore import restore
from vmrunner.store import digest_of, open_store
from vmrunner.store.put import put
from vmrunner.store.source_transfer import SourceTransfer
from vmrunner.store.uploader import Uploader

KEY = Fernet.generate_key().decode()
NOW = 1_000.0


class Place:
    """A ledger and its store, or where they are to be."""

    def __init__(self, url: str, root: Path, key: str = KEY, **settings: Any) -> None:
        root.mkdir(exist_ok=True)
        self.url, self.root, self.key = url, root, key
        self.paths = Paths(data=root / "data", cache=root / "cache")
        self.paths.data.mkdir(exist_ok=True)
        values = {"database": {"url": url}, "secret_key": key, **settings}
        self.settings = Settings.model_validate(values)
        self.store = Breaking(open_store(f"file://{root}/store"))
        self._ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger.open(self.url, data_dir=self.paths.data, secret_key=self.key)
        return self._ledger

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    @property
    def sources(self) -> SourceTransfer:
        return SourceTransfer(self.ledger, lambda: self.store, self.paths.sources, lambda: NOW)

    def backup(self, to: Path) -> Backup:
        uploader = Uploader(
            self.ledger, lambda: self.store, sources=self.paths.sources,
            artifacts=self.paths.artifacts, clock=lambda: NOW,
        )  # fmt: skip
        return backup(
            self.ledger, self.store, to, uploader=uploader, version="test", clock=lambda: NOW
        )

    def restore(self, source: Path, **options: bool) -> BackupManifest:
        self.close()
        return restore(
            self.settings, self.paths, lambda: self.store, source, clock=lambda: NOW, **options
        )

    def artifacts(self, build: str, *, conclude: bool = True) -> str:
        """The stored artifacts of a build that ended."""
        file = self.root / "file"
        file.write_bytes(build.encode())
        stored = put(
            self.ledger, self.store, ObjectKind.ARTIFACTS, file, digest=digest_of(file), now=NOW,
            build=build, attempt=1, epoch=1,
        )  # fmt: skip
        assert not conclude or self.ledger.objects.conclude(stored, epoch=1)
        return stored.name
