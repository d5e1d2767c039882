"""Artifacts of a build, and the way of them to where the caller wants them."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from vmrunner.errors import NotFound, NotUploaded, StoreError, VmrunnerError
from vmrunner.lib import dirfd
from vmrunner.lib.globs import Globs
from vmrunner.services.documents import shown
from vmrunner.store.build_artifacts import ArtifactEntry, ArtifactFiles

if TYPE_CHECKING:
    from vmrunner.model import BuildRecord

T = TypeVar("T")

log = logging.getLogger("vmrunner")

#: Seconds that who follows a build waits for what another host brought, and between two looks.
FETCH_PATIENCE: Final = 60.0
_LOOK_AGAIN: Final = 1.0


def when_uploaded(find: Callable[[], T], patience: float = FETCH_PATIENCE) -> T:
    """The value of `find`; while it raises NotUploaded it is tried again, for so many
    seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            return find()
        except NotUploaded:
            if time.monotonic() >= until:
                raise
        time.sleep(_LOOK_AGAIN)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a build brought back. `path` is relative, as it was in the work directory."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts of one build. `globs` are those that it was asked for."""

    find: Callable[[], ArtifactFiles]
    build: str = ""
    globs: tuple[str, ...] = ()
    patience: float = 0.0  # seconds that artifacts on their way to the store are waited for

    @classmethod
    def of(
        cls, build: BuildRecord, find: Callable[[str], ArtifactFiles], *, patience: float = 0.0
    ) -> Artifacts:
        """Return the artifacts of a build, which `find` finds. Complete once it has ended."""
        globs = tuple(rule.glob for rule in build.spec.artifacts)
        return cls(lambda: find(build.id), build.id, globs, patience)

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self.ls())

    def __len__(self) -> int:
        return len(self.ls())

    def ls(self) -> list[Artifact]:
        """All files, by path; a link is one, whatever it leads to. Raises NotFound while they are
        on another host, and StoreError."""
        return [Artifact(entry.path, entry.size) for entry in self.files().ls()]

    def known(self) -> list[Artifact]:
        """The same at once, or none while they cannot be had: for who tells of more than them."""
        try:
            return replace(self, patience=0.0).ls()
        except (NotFound, StoreError) as error:
            log.warning("artifacts: %s", error)
            return []

    def read(self, path: str) -> tuple[Iterator[bytes], int]:
        """Return the bytes of one file, by its path in `ls`, or as that is shown where it is no
        UTF-8; and how many. Raises NotFound."""
        files = self.files()
        entries = files.ls()
        named = {shown(entry.path): entry for entry in entries}
        entry = (named | {entry.path: entry for entry in entries}).get(path)
        if entry is None or not stat.S_ISREG(entry.mode):
            raise NotFound(f"no artifact {path!r}" if entry is None else f"{path!r} is no file")
        try:
            return files.read(entry), entry.size
        except OSError:  # it is gone meanwhile
            raise NotFound(f"no artifact {path!r}") from None

    def files(self) -> ArtifactFiles:
        """Return all that is known of them, and their bytes. Raises NotFound, StoreError."""
        return when_uploaded(self.find, self.patience)

    def download(
        self,
        dest: str | os.PathLike[str],
        *paths: str,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> list[Path]:
        """Copy them all, or those that `paths` name (a file, a directory, a glob), below `dest`;
        returns where each is. What is there by the same name is replaced once the copy is whole;
        no link in `dest` is followed, and none on the way to it unless it is absolute. Left out,
        with a warning, is what is no file, and git's own unless it was asked for by name.
        `on_bytes`: hears of each piece how many bytes came. Raises
        `NotFound` for a path that did not come back, and `VmrunnerError` when some cannot be
        copied: then all others are."""
        files = self.files()
        entries = {entry.path: entry for entry in files.ls()}
        wanted = _named(entries, paths) if paths else list(entries)
        requested = Globs([*self.globs, *paths])
        copied: list[Path] = []
        omitted: dict[str, None] = {}
        troubles: list[str] = []
        for path in wanted:
            target = Path(dest, path)
            try:
                if why := _unwanted(entries[path], requested):
                    omitted[why] = None
                    continue
                _copy(files, entries[path], Path(dest), on_bytes)
                copied.append(target)
            except OSError as error:
                reason = error.strerror or str(error)
                troubles.append(f"artifacts: {path!r} cannot be copied to {target}: {reason}")
        for why in omitted:
            log.warning("artifacts: %s: left out", why)
        if troubles:
            more = f" (and {len(troubles) - 1} more)" if troubles[1:] else ""
            raise VmrunnerError(
                troubles[0] + more,
                hint=f"mend it, then: vmrunner artifacts get {self.build} --to DIR",
            )
        return copied


def _named(stored: Collection[str], paths: Sequence[str]) -> list[str]:
    found: set[str] = set()
    for path in paths:
        glob = Globs([path])
        these = [k for k in stored if k == path or glob.match(k, directory=False)]
        if not these:
            raise NotFound(f"no artifact {path!r}", hint="there: " + (", ".join(stored) or "none"))
        found.update(these)
    return sorted(found)


def _unwanted(entry: ArtifactEntry, requested: Globs) -> str:
    if entry.target is not None:
        return requested.risk(entry.path, file=True) or requested.risk(entry.target)
    return (
        requested.risk(entry.path, file=True)
        if stat.S_ISREG(entry.mode)
        else f"{entry.path!r} is no file"
    )


def _copy(
    files: ArtifactFiles, entry: ArtifactEntry, dest: Path, on_bytes: Callable[[int], None]
) -> None:
    *above, name = map(os.fsencode, entry.path.split("/"))
    with dirfd.opened(dest, make=True) as root:
        parent = dirfd.descend(root, above)
    try:
        if entry.target is not None:
            dirfd.link(parent, name, os.fsencode(entry.target))
            return
        pieces = files.read(entry)
        with dirfd.replacing(parent, name, 0o600) as file:
            for piece in pieces:
                file.write(piece)
                on_bytes(len(piece))
            file.flush()
            os.fchmod(file.fileno(), stat.S_IMODE(entry.mode) & 0o777)
            os.utime(file.fileno(), ns=(entry.mtime_ns, entry.mtime_ns))
    finally:
        os.close(parent)
