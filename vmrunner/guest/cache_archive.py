"""Directories to tars and back, with care for one thing: nothing outside the directory is touched,
and what cannot be kept (devices, sockets, FIFOs) is left out.

It runs where only the build's container is in reach. Names of users and groups are never asked for:
that would load the container's own libraries.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import time
import zlib  # which tarfile would load late
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

PIECE = 1 << 18


class NotCached(Exception):
    """The words for why a cache was not restored, or not packed."""


class Bounded:
    """A file that may not grow past a limit, as tarfile writes it."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._most = most
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        if self.size > self._most:
            raise NotCached(f"it is larger than {self._most >> 20} MiB")
        self._file.write(data)
        return len(data)

    def close(self) -> None:
        """Be whole."""


class Gzip(Bounded):
    """The same, packed quickly."""

    def __init__(self, out: Bounded) -> None:
        self._out = out
        self._packer = zlib.compressobj(1, wbits=31)

    def write(self, data: bytes) -> int:
        self._out.write(self._packer.compress(data))
        return len(data)

    def close(self) -> None:
        self._out.write(self._packer.flush())


# --- out of the directory ------------------------------------------------------------------------


def pack(root: str, out: Bounded, *, gzip: bool, check: Callable[[], object]) -> None:
    """Write a tar of what lies below `root`. `check` is called again and again, and may raise."""
    if not os.path.isdir(root):
        raise NotCached("no such directory" if not os.path.lexists(root) else "no directory")
    seen: dict[tuple[int, int], str] = {}
    sink = Gzip(out) if gzip else out
    stream: Any = sink  # it is only written to
    with tarfile.open(
        mode="w|", fileobj=stream, format=tarfile.GNU_FORMAT, encoding="utf-8"
    ) as tar:
        for name in _walk(root):
            check()
            _add(tar, root, name, seen)
    sink.close()


def _walk(root: str) -> Iterator[str]:
    """Names below a directory, each directory before what is in it; "." is the first."""
    todo = ["."]
    while todo:
        here = todo.pop()
        yield here
        try:
            names = sorted(os.listdir(os.path.join(root, here)))
        except OSError:
            continue
        for name in names:
            path = name if here == "." else f"{here}/{name}"
            if stat.S_ISDIR(_mode(os.path.join(root, path))):
                todo.append(path)
            else:
                yield path


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _add(tar: tarfile.TarFile, root: str, name: str, seen: dict[tuple[int, int], str]) -> None:
    """Add one thing. What vanished meanwhile is left out."""
    path = os.path.join(root, name)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.uid, info.gid, info.mtime = found.st_uid, found.st_gid, int(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        tar.addfile(info)
    elif stat.S_ISREG(found.st_mode):
        first = seen.setdefault((found.st_dev, found.st_ino), name) if found.st_nlink > 1 else name
        if first != name:
            info.type, info.linkname = tarfile.LNKTYPE, first
            tar.addfile(info)
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                info.size = status.st_size
                tar.addfile(info, file)


# --- into the directory --------------------------------------------------------------------------


def unpack(file: IO[bytes], root: str, *, check: Callable[[], object]) -> None:
    """Fill `root`, which is made where it is missing. What breaks off leaves nothing that was not
    there before, unless something was."""
    was_empty = not os.path.lexists(root) or (os.path.isdir(root) and not os.listdir(root))
    os.makedirs(root, 0o755, exist_ok=True)
    try:
        with tarfile.open(mode="r|*", fileobj=file, encoding="utf-8") as tar:
            _Filling(root, check).take(tar)
    except BaseException as error:
        if was_empty:
            for name in os.listdir(root):
                _clear(os.path.join(root, name))
        if isinstance(error, OverflowError):
            raise NotCached(f"it holds a number that no file can have: {error}") from error
        raise


class _Filling:
    """A directory that is being filled. Directories that are known to be no links are looked at
    once."""

    def __init__(self, root: str, check: Callable[[], object]) -> None:
        self._root = root
        self._check = check
        self._directories = {""}

    def take(self, tar: tarfile.TarFile) -> None:
        for info in tar:
            self._check()
            if info.name in (".", ""):
                _dress(self._root, info)
                continue
            path = self._path(info.name)
            if info.isdir():
                self._directory(info, path)
            elif info.isreg():
                self._file(tar, info, path)
            elif info.issym():
                _clear(path)
                os.symlink(info.linkname, path)
                os.lchown(path, info.uid, info.gid)
            elif info.islnk():
                source = self._path(info.linkname)
                _clear(path)
                os.link(source, path, follow_symlinks=False)
            tar.members = []  # type: ignore[attr-defined]  # else it remembers all

    def _path(self, name: str) -> str:
        """Path of a name of the tar, below directories that are no links."""
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise NotCached(f"it holds the name {name[:80]!r}")
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            if above in self._directories:
                continue
            path = os.path.join(self._root, above)
            if not stat.S_ISDIR(_mode(path)):
                raise NotCached(f"it holds {name[:80]!r} below what is no directory")
            self._directories.add(above)
        return os.path.join(self._root, name)

    def _directory(self, info: tarfile.TarInfo, path: str) -> None:
        if not stat.S_ISDIR(_mode(path)):
            _clear(path)
            os.mkdir(path, 0o700)
        _dress(path, info)
        self._directories.add(info.name)

    def _file(self, tar: tarfile.TarFile, info: tarfile.TarInfo, path: str) -> None:
        _clear(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
            source = tar.extractfile(info)
            assert source is not None
            while piece := source.read(PIECE):
                self._check()
                out.write(piece)
        _dress(path, info)


def _dress(path: str, info: tarfile.TarInfo) -> None:
    """Owner first: a change of it takes bits of the mode away."""
    os.lchown(path, info.uid, info.gid)
    os.chmod(path, stat.S_IMODE(info.mode))
    os.utime(path, (info.mtime, info.mtime))


def _clear(path: str) -> None:
    """Remove what stands in the way; of a link the link."""
    if stat.S_ISDIR(_mode(path)):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def deadline(seconds: float) -> Callable[[], None]:
    """Return a check that raises once the time is over."""
    until = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > until:
            raise NotCached(f"it took over {seconds:.0f} s")

    return check
