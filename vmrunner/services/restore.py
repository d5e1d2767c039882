"""Restore of a backup: objects into the store, then the ledger, as another generation of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.config import paths as config
from vmrunner.engine.membership import seems_alive
from vmrunner.errors import ConfigError, Conflict, NotFound, StoreError
from vmrunner.ledger import Ledger, upgrade
from vmrunner.lib import database_url, local_files
from vmrunner.lib import process as processes
from vmrunner.services import backup_manifest
from vmrunner.services.backup_manifest import LEDGER, OBJECTS, BackupManifest
from vmrunner.store import ObjectStore, verified

if TYPE_CHECKING:
    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.ledger.backups import CopiedObject, LedgerInPlace
    from vmrunner.ledger.transfer_types import Member

#: Seconds in which a living engine beats at least once: one that makes a template, each 20 s.
BEAT_WATCH: Final = 25.0


def restore(
    settings: Settings,
    paths: Paths,
    store: Callable[[], ObjectStore],
    source: Path,
    *,
    replace: bool = False,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> BackupManifest:
    """Put a backup where the configuration says that ledger and store are. All of it is held
    against its hashes before anything changes. The ledger is another generation from then on,
    which concludes nothing about VMs that it does not know, and launches nothing until it is told
    to. `replace`: also over a ledger that has builds or is of another installation; never over one
    that is served."""
    url = config.database_url(settings)
    manifest = backup_manifest.read(source)
    _refuse_another_kind(url, manifest)
    upgrade.behind(manifest.version)  # raises for a newer one
    objects = backup_manifest.verify(source, manifest)
    secret = settings.secret_key
    Ledger.refuse_other_key(
        manifest.sealed_canary,
        data_dir=paths.data,
        secret_key=secret.get_secret_value() if secret else None,
    )
    _refuse_installation(settings, paths, manifest, replace=replace)
    _refuse_place(lambda: Ledger.in_place(url), url, clock(), replace=replace, sleep=sleep)
    if dry_run:
        return manifest
    for item in objects:
        _put(store(), item, source / OBJECTS / item.name)
    Ledger.put_back(url, source / LEDGER, version=manifest.version, gone=manifest.gone, now=clock())
    if not settings.installation:
        local_files.ready_directory(paths.data, field="the ledger's files", fix="see who owns it")
        local_files.replace(paths.data / "installation", manifest.installation)
    return manifest


def _refuse_another_kind(url: str, manifest: BackupManifest) -> None:
    here = "sqlite" if url.startswith(database_url.SQLITE) else "postgresql"
    if here != manifest.database:
        raise ConfigError(
            f"database.url: {database_url.shown(url)} is {here}, and the backup is of a ledger on "
            f"{manifest.database}",
            hint="name such a database with VMRUNNER_DATABASE_URL",
        )


def _refuse_installation(
    settings: Settings, paths: Paths, manifest: BackupManifest, *, replace: bool
) -> None:
    if settings.installation not in (None, manifest.installation):
        raise ConfigError(
            f"installation is {settings.installation}, but the backup belongs to installation "
            f"{manifest.installation}",
            hint=f'set installation = "{manifest.installation}"',
        )
    kept = local_files.read(paths.data / "installation")
    if settings.installation is None and kept not in (None, manifest.installation) and not replace:
        raise Conflict(
            f"{paths.data / 'installation'} is {kept}, but the backup belongs to installation "
            f"{manifest.installation}: VMs of the former would be in no ledger",
            hint="--replace if there are none",
        )


def _refuse_place(
    look: Callable[[], LedgerInPlace],
    url: str,
    now: float,
    *,
    replace: bool,
    sleep: Callable[[float], object],
) -> None:
    found = look()
    one_host = url.startswith(database_url.SQLITE)
    living = [member for member in found.members if seems_alive(member, now, one_host=one_host)]
    beats = {
        member.id: member.seen_at for member in found.members if _unseen(member, one_host=one_host)
    }
    if beats and not living:  # their clocks may be others: one that beats lives
        sleep(BEAT_WATCH)
        later = look().members
        living = [
            member for member in later if beats.get(member.id, member.seen_at) != member.seen_at
        ]
    if living:
        raise Conflict(
            f"the ledger at {database_url.shown(url)} is served: by {living[0].kind}, process "
            f"{living[0].process.pid} of machine {living[0].process.machine}",
            hint="stop all that serve it; one that was killed is believed dead after a minute",
        )
    if found.used and not replace:
        raise Conflict(
            f"the ledger at {database_url.shown(url)} has builds, VMs, images or tokens",
            hint="--replace, if they may be lost",
        )


def _unseen(member: Member, *, one_host: bool) -> bool:
    return processes.alive(member.process, one_host=one_host) is None


def _put(store: ObjectStore, item: CopiedObject, file: Path) -> None:
    """Store an object, unless it is there with all its bytes."""
    try:
        for _ in verified(store.read(item.name), item.digest, item.name):
            pass
    except (NotFound, StoreError):
        store.put(item.name, file, digest=item.digest)
