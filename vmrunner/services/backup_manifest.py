"""The manifest of a backup: what lies in it, and by which hashes. It is written last."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vmrunner.config.fault_words import in_words
from vmrunner.errors import NotFound, StoreError
from vmrunner.ledger.backups import CopiedObject
from vmrunner.store import digest_of

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
LEDGER: Final = "ledger"
OBJECTS: Final = "objects"
OBJECT_LIST: Final = "objects.jsonl"


class BackupManifest(BaseModel):
    """One backup. `gone`: objects that were deleted while it was made; `lost`: those that a row
    has and the store had not, or not with their bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    vmrunner: str
    database: str = Field(pattern="^(sqlite|postgresql)$")
    version: str
    installation: str
    generation: str
    canary: str
    taken_at: float
    ledger_sha256: str
    objects_sha256: str
    objects: int
    size: int
    gone: list[str] = []
    lost: list[str] = []
    checksum: str = ""

    @field_validator("format")
    @classmethod
    def _known(cls, value: int) -> int:
        if value != FORMAT:
            raise ValueError(f"this vmrunner knows format {FORMAT} alone; use that which made it")
        return value

    def with_checksum(self) -> BackupManifest:
        """Return the same with a checksum of the rest."""
        return self.model_copy(update={"checksum": self._sum})

    @property
    def _sum(self) -> str:
        rest = self.model_copy(update={"checksum": ""}).model_dump_json()
        return hashlib.sha256(rest.encode()).hexdigest()

    @property
    def whole(self) -> bool:
        """True if it is as it was written."""
        return self.checksum == self._sum

    @property
    def sealed_canary(self) -> bytes:
        return base64.b64decode(self.canary)

    @property
    def missing(self) -> frozenset[str]:
        """Return the objects that rows name and the backup has not."""
        return frozenset((*self.gone, *self.lost))


def read(directory: Path) -> BackupManifest:
    """Read the manifest. Raises NotFound where there is none, StoreError where it is damaged."""
    path = directory / MANIFEST
    try:
        found = BackupManifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"{directory} is no backup: it has no {MANIFEST}",
            hint="name the directory that `vmrunner backup` made",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(path, f"{where}: {in_words(first)[0]}") from error
    if not found.whole:
        raise damaged(path, "it was changed")
    return found


def write_objects(directory: Path, objects: list[CopiedObject]) -> None:
    """Write the list of objects."""
    with (directory / OBJECT_LIST).open("x") as file:
        for item in objects:
            document = {"name": item.name, "size": item.size, "sha256": item.digest}
            file.write(json.dumps(document) + "\n")


def read_objects(directory: Path) -> Iterator[CopiedObject]:
    """Yield what the list of objects has. Raises StoreError where it is damaged."""
    path = directory / OBJECT_LIST
    with path.open() as file:
        for line in file:
            try:
                found: dict[str, Any] = json.loads(line)
                item = CopiedObject(found["name"], found["size"], found["sha256"])
            except (ValueError, KeyError, TypeError) as error:
                raise damaged(path, "a line that is none of ours") from error
            if item.name.startswith("/") or ".." in item.name.split("/"):
                raise damaged(path, f"the name {item.name!r}")
            yield item


def verify(directory: Path, manifest: BackupManifest) -> list[CopiedObject]:
    """Hold all that lies there against its hashes; return the objects. Raises StoreError."""
    for name, digest in (
        (LEDGER, manifest.ledger_sha256),
        (OBJECT_LIST, manifest.objects_sha256),
    ):
        _verify(directory / name, digest)
    objects = [item for item in read_objects(directory) if item.name not in manifest.missing]
    for item in objects:
        _verify(directory / OBJECTS / item.name, item.digest)
    return objects


def _verify(path: Path, digest: str) -> None:
    try:
        found = digest_of(path)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    if found != digest:
        raise damaged(path, "its bytes are not those that were written")


def damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"the backup is damaged: {path}: {why}", hint="use another one")
