"""Artifacts of a build, and the way of them to where the caller wants them."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.lib import dirfd
from vmrunner.lib.globs import Globs

if TYPE_CHECKING:
    from vmrunner.model import BuildRecord

log = logging.getLogger("vmrunner")

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a build brought back. `path` is relative, as it was in the work directory."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts of one build. `globs` are those that it was asked for."""

    directory: Path
    globs: tuple[str, ...] = ()

    @classmethod
    def of(cls, build: BuildRecord, place: Path) -> Artifacts:
        """Return the artifacts of a build, where `place` has a directory for each. Complete once it
        has ended."""
        return cls(place / build.id, tuple(rule.glob for rule in build.spec.artifacts))

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self.ls())

    def __len__(self) -> int:
        return len(self.ls())

    def ls(self) -> list[Artifact]:
        """All files, by path; a link is one, whatever it leads to."""
        found = []
        for place, below, names in os.walk(self.directory):
            links = [name for name in below if Path(place, name).is_symlink()]
            for name in names + links:
                path = Path(place, name)
                size = path.lstat().st_size
                found.append(Artifact(str(path.relative_to(self.directory)), size))
        return sorted(found, key=lambda artifact: artifact.path)

    def open(self, path: str) -> tuple[BinaryIO, int]:
        """Open one file for reading, by its path in `ls`; and its size. Raises NotFound."""
        known = {artifact.path for artifact in self.ls()}
        try:
            if path not in known:
                raise FileNotFoundError
            file = os.fdopen(os.open(self.directory / path, _READ), "rb")
        except OSError:  # a link, or gone meanwhile
            raise NotFound(f"no artifact {path!r}") from None
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            file.close()
            raise NotFound(f"artifact {path!r} is no file")
        return file, info.st_size

    def download(self, dest: str | os.PathLike[str], *paths: str) -> list[Path]:
        """Copy them all, or those that `paths` name (a file, a directory, a glob), below `dest`;
        returns where each is. What is there by the same name is replaced once the copy is whole;
        no link in `dest` is followed, and none on the way to it unless it is absolute. Left out,
        with a warning, is what is no file, and git's own unless it was asked for by name. Raises
        `NotFound` for a path that did not come back, and `VmrunnerError` when some cannot be
        copied: then all others are."""
        wanted = self._named(paths) if paths else [artifact.path for artifact in self.ls()]
        asked = Globs([*self.globs, *paths])
        copied: list[Path] = []
        omitted: dict[str, None] = {}
        troubles: list[str] = []
        for path in wanted:
            target = Path(dest, path)
            try:
                if why := self._unwanted(path, asked):
                    omitted[why] = None
                    continue
                self._copy(path, Path(dest))
                copied.append(target)
            except OSError as error:
                said = error.strerror or str(error)
                troubles.append(f"artifacts: {path!r} cannot be copied to {target}: {said}")
        for why in omitted:
            log.warning("artifacts: %s: left out", why)
        if troubles:
            more = f" (and {len(troubles) - 1} more)" if troubles[1:] else ""
            raise VmrunnerError(
                troubles[0] + more,
                hint=f"mend it, then: vmrunner artifacts get {self.directory.name} --to DIR",
            )
        return copied

    def _named(self, paths: Sequence[str]) -> list[str]:
        known = [artifact.path for artifact in self.ls()]
        found: set[str] = set()
        for path in paths:
            glob = Globs([path])
            these = [k for k in known if k == path or glob.match(k, directory=False)]
            if not these:
                raise NotFound(
                    f"no artifact {path!r}", hint="there: " + (", ".join(known) or "none")
                )
            found.update(these)
        return sorted(found)

    def _unwanted(self, path: str, asked: Globs) -> str:
        place = self.directory / path
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            return asked.risk(path) or asked.risk(os.readlink(place))  # noqa: PTH115 - as written
        return asked.risk(path) if stat.S_ISREG(mode) else f"{path!r} is no file"

    def _copy(self, path: str, dest: Path) -> None:
        *above, name = map(os.fsencode, path.split("/"))
        place = self.directory / path
        with dirfd.opened(dest, make=True) as root:
            parent = dirfd.descend(root, above)
        try:
            if place.is_symlink():
                dirfd.link(parent, name, os.readlink(os.fsencode(place)))  # noqa: PTH115
                return
            with os.fdopen(os.open(place, _READ), "rb") as source:
                info = os.fstat(source.fileno())
                with dirfd.replacing(parent, name, 0o600) as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                    file.flush()
                    os.fchmod(file.fileno(), stat.S_IMODE(info.st_mode) & 0o777)
                    os.utime(file.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(parent)
