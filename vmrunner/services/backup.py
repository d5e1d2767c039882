"""Backup of a ledger with its store, while it is served."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import Conflict, DamagedObject, NotFound, VmrunnerError
from vmrunner.lib import database_url, private_dirs
from vmrunner.model import ObjectState
from vmrunner.services import backup_manifest
from vmrunner.services.backup_manifest import LEDGER, OBJECT_LIST, OBJECTS, BackupManifest
from vmrunner.store import ObjectStore, digest_of, verified

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.ledger.backups import CopiedObject
    from vmrunner.store.uploader import Uploader

#: So many seconds may be spent on what builds of this host left and no node uploaded yet.
_UPLOADS: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """A backup that was made. `unbrought`: builds whose artifacts were on a host still, and are not
    in it."""

    directory: Path
    manifest: BackupManifest
    unbrought: int


def backup(
    ledger: Ledger,
    store: ObjectStore,
    destination: Path,
    *,
    uploader: Uploader,
    version: str,
    clock: Callable[[], float] = time.time,
) -> Backup:
    """Copy the ledger as it is at one moment, and then each object that it has a row of: so no row
    is without its bytes. `destination` appears when all of it is on the disk. The secret key is
    not in it. `version`: of vmrunner. Raises Conflict when something is there already, and
    StoreError or LedgerError."""
    destination = destination.absolute()
    with _on_its_way(destination) as partial:
        until = time.monotonic() + _UPLOADS
        uploader.run(lambda: time.monotonic() > until)
        taken_at = clock()
        copy = ledger.copy_to(partial / LEDGER)
        backup_manifest.write_objects(partial, copy.objects)
        gone: list[str] = []
        lost: list[str] = []
        for item in copy.objects:
            if not _fetched(store, item, partial / OBJECTS / item.name):
                (lost if _is_stored(ledger, item.name) else gone).append(item.name)
        missing = {*gone, *lost}
        manifest = BackupManifest(
            vmrunner=version,
            database="sqlite" if ledger.url.startswith(database_url.SQLITE) else "postgresql",
            version=copy.version,
            installation=copy.installation,
            generation=copy.generation,
            canary=base64.b64encode(copy.canary).decode(),
            taken_at=taken_at,
            ledger_sha256=digest_of(partial / LEDGER),
            objects_sha256=digest_of(partial / OBJECT_LIST),
            objects=len(copy.objects) - len(missing),
            size=sum(item.size for item in copy.objects if item.name not in missing),
            gone=gone,
            lost=lost,
        ).with_checksum()
        (partial / backup_manifest.MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return Backup(directory=destination, manifest=manifest, unbrought=copy.unbrought)


@contextmanager
def _on_its_way(destination: Path) -> Iterator[Path]:
    """A directory beside it, which takes its name when all is well, and else is removed."""
    partial = destination.with_name(destination.name + ".part")
    for path, hint in (
        (destination, "name a directory that is not there yet"),
        (partial, "another backup to it is under way; if it was killed, remove that"),
    ):
        if os.path.lexists(path):
            raise Conflict(f"{path} is there already", hint=hint)
    try:
        partial.mkdir(mode=private_dirs.PRIVATE)
        try:
            yield partial
            for place, _, files in os.walk(partial):
                _flush(Path(place), *(Path(place, name) for name in files))
            partial.rename(destination)
            _flush(destination.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise VmrunnerError(
            f"the backup cannot be written to {destination}: {error.strerror}",
            hint="see who owns its directory, and its room",
        ) from error


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _fetched(store: ObjectStore, item: CopiedObject, path: Path) -> bool:
    """Copy one object out of the store. False: it has none of this name, or other bytes than were
    put into it."""
    private_dirs.make(path.parent)
    try:
        path.touch(mode=0o600, exist_ok=False)
        with path.open("wb") as file:
            for piece in verified(store.read(item.name), item.digest, item.name):
                file.write(piece)
    except (NotFound, DamagedObject):
        path.unlink()
        return False
    return True


def _is_stored(ledger: Ledger, name: str) -> bool:
    try:
        return ledger.objects.get(name).state is ObjectState.STORED
    except NotFound:
        return False
