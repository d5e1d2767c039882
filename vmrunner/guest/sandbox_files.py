"""File operations of a sandbox. The first line on stdin is a request, {"do", "path"}. What is to be
written follows it in pieces, each after its length in a line of its own, and "0" at its end: what
is broken off before is not taken for whole. Each runs in the file system of the container, with its
root's rights to files.

    read      the bytes of a file            write     stdin becomes the file, whole or not at all
    list      a JSON line for each entry     remove    a file, or a directory with all in it
    stat      one such line                  make_dir  with those above it
    pack      a tar of a file or directory   unpack    a tar on stdin, below a directory
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, cast

from .command_io import Output, Request

FAILED = 10  # exit code: the request could not be met; {"errno", "message"} is the complaint
HEAD = 64 << 10  # bytes of a request
PIECE = 256 << 10
ENTRIES = 10_000  # of one list
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}


def operate(request: Request) -> int:
    """Do what the request says."""
    operation, rest = _operation()
    work = OPERATIONS[operation["do"]]
    runtime = request.place.runtime
    by_programs = runtime.by_programs(str(operation["path"]), request.work)
    sys.path.clear()  # from here on nothing may be loaded: it would be the container's
    try:
        if by_programs is not None:
            by_programs(request.place, operation, request.out, rest, request.work)
            return 0
        runtime.enter(request.place, request.work)
        work(runtime.path_inside(str(operation["path"]), request.work), request.out, rest)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        name = errno.errorcode.get(getattr(error, "errno", None) or 0, "EIO")
        reason = getattr(error, "strerror", None) or error
        text = {"errno": name, "message": f"{operation['path']}: {reason}"}
        request.out.complain(json.dumps(text))
        return FAILED
    return 0


def _operation() -> tuple[dict[str, Any], Iterator[bytes]]:
    """The first line of stdin, and the pieces after it."""
    stdin = io.BufferedReader(io.FileIO(0, closefd=False), PIECE)
    operation = json.loads(stdin.readline(HEAD))

    def pieces() -> Iterator[bytes]:
        while remaining := int(stdin.readline(HEAD) or -1):
            if remaining < 0:
                raise OSError(errno.EPIPE, "it was broken off")
            while remaining:
                if not (data := stdin.read1(min(remaining, PIECE))):
                    raise OSError(errno.EPIPE, "it was broken off")
                remaining -= len(data)
                yield data

    return operation, pieces()


def read(path: str, out: Output, _: Iterator[bytes]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    _check_regular(os.fstat(fd).st_mode)
    while data := os.read(fd, PIECE):
        out.write(data)


def _check_regular(mode: int) -> int:
    """Return a file's permissions. Raises OSError for what is no regular file."""
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return stat.S_IMODE(mode)


def write(path: str, _: Output, data: Iterator[bytes]) -> None:
    path, mode, former = os.path.realpath(path), 0o644, None
    if os.path.exists(path):
        former = os.stat(path)
        mode = _check_regular(former.st_mode)
    above = os.path.dirname(path)
    os.makedirs(above, 0o755, exist_ok=True)
    draft = f"{above}/.vmrunner-{os.urandom(6).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in data:
            while piece:
                piece = piece[os.write(fd, piece) :]
        if former is not None:
            os.fchown(fd, former.st_uid, former.st_gid)
        os.fchmod(fd, mode)  # last: a new owner takes the set-id bits away
        _replace(path, draft)
    except BaseException:
        os.unlink(draft)
        raise
    finally:
        os.close(fd)


def _replace(path: str, draft: str) -> None:
    try:
        os.rename(draft, path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        with open(draft, "rb") as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target)  # it is a mount, as /etc/hosts is
        os.unlink(draft)


def entries(path: str, out: Output, _: Iterator[bytes]) -> None:
    with os.scandir(path) as found:
        names = []
        for entry in found:
            names.append(entry.name)
            if len(names) > ENTRIES:
                raise OSError(errno.E2BIG, f"it has more than {ENTRIES} entries")
    for name in sorted(names):
        with suppress(FileNotFoundError):  # it has gone meanwhile
            out.write(_document(os.path.join(path, name)))


def describe(path: str, out: Output, _: Iterator[bytes]) -> None:
    out.write(_document(path))


def _document(path: str) -> bytes:
    info = os.lstat(path)
    document = {
        "name": os.path.basename(path.rstrip("/")) or "/",
        "path": path,
        "kind": KINDS.get(stat.S_IFMT(info.st_mode), "other"),
        "size": info.st_size,
        "mode": stat.S_IMODE(info.st_mode),
        "modified": info.st_mtime,
    }
    return json.dumps(document).encode() + b"\n"


def remove(path: str, _: Output, __: Iterator[bytes]) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def make_dir(path: str, _: Output, __: Iterator[bytes]) -> None:
    os.makedirs(path, 0o755, exist_ok=True)


def pack(path: str, out: Output, _: Iterator[bytes]) -> None:
    os.lstat(path)  # one that is missing is told before the first byte
    _without_names()
    file = cast("BinaryIO", out)  # it is only written to
    with _Tar.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        if not os.path.isdir(path):
            tar.add(path, arcname=os.path.basename(path), recursive=False)
            return
        for name in sorted(os.listdir(path)):
            tar.add(os.path.join(path, name), arcname=name, filter=_plain)


def unpack(path: str, _: Output, data: Iterator[bytes]) -> None:
    os.makedirs(path, 0o755, exist_ok=True)
    _without_names()
    try:
        with tarfile.open(fileobj=cast("BinaryIO", _Read(data)), mode="r|") as tar:
            tar.extractall(path, numeric_owner=True, filter="tar")
    except tarfile.TarError as error:
        raise OSError(errno.EINVAL, str(error)) from error


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what no host takes: sockets, devices, FIFOs."""
    return member if member.isreg() or member.isdir() or member.issym() else None


def _without_names() -> None:
    """Look no user up: the C library would load modules from the container's directories."""
    tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]


class _Tar(tarfile.TarFile):
    def gettarinfo(self, *where: Any, **more: Any) -> tarfile.TarInfo:
        self.inodes.clear()  # type: ignore[attr-defined]  # each name of a file is one: no links
        try:
            return super().gettarinfo(*where, **more)
        except FileNotFoundError:  # it has gone meanwhile: None is left out
            return None  # type: ignore[return-value]


class _Read:
    """Pieces as a file that tar reads."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


OPERATIONS: dict[str, Callable[[str, Output, Iterator[bytes]], None]] = {
    "read": read,
    "write": write,
    "list": entries,
    "stat": describe,
    "remove": remove,
    "make_dir": make_dir,
    "pack": pack,
    "unpack": unpack,
}
