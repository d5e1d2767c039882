"""Source and artifacts of a unit, whose image may have processes of its own at any time: one that
swaps a directory for a link leads us nowhere, since the work directory is then all that there is.

So a link to a path from / is one to a path from the work directory here.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable
from typing import IO, Any, cast

from .artifact_globs import BadGlobs, find
from .cache_archive import Bounded, Gzip
from .command_io import Request, received
from .state import OTHER_ATTEMPT

UNCOLLECTED = 2  # exit code
WORDS = 4096  # bytes of a complaint


def unpack(request: Request) -> int:
    """Replace what is in the work directory by a tar on stdin, until a job came that needs it."""
    if request.place.was_started() or request.place.job():
        return OTHER_ATTEMPT
    return _inside(request, lambda: _unpack("r|gz" if request.gzip else "r|"), 1)


def collect(request: Request) -> int:
    """Print how many files each glob matches, as one JSON line; then write a tar of them."""
    globs = json.loads(received())
    return _inside(request, lambda: _collect(globs, request), UNCOLLECTED)


def _inside(request: Request, work: Callable[[], object], failed: int) -> int:
    """Do it in a child for which the work directory is the root. Returns 0, or `failed` after a
    complaint."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        code = 1
        try:
            # From here on nothing may be loaded: it would be the build's.
            tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]
            sys.path.clear()
            sys.meta_path.clear()
            request.place.runtime.enter(request.place, request.work)
            work()
            code = 0
        except (BadGlobs, OSError, ValueError, OverflowError, tarfile.TarError) as error:
            code = failed
            os.write(writing, str(error).encode(errors="replace")[:WORDS])
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        complaint = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        request.out.complain(complaint.decode(errors="replace") or f"the child ended with {code}")
    return failed if code else 0


# --- in the child --------------------------------------------------------------------------------


def _unpack(mode: str) -> None:
    for name in os.listdir("/"):
        path = f"/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    with open(0, "rb", closefd=False) as stdin:
        opening: Any = tarfile.open  # the mode is no literal
        with opening(mode=mode, fileobj=stdin, encoding="utf-8") as tar:
            tar.extractall("/", numeric_owner=True, filter=_owned)  # noqa: S202 - all of it is here
        while stdin.read(1 << 18):
            pass


def _owned(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    """The same as a file of root's: nobody of where it comes from is here."""
    return member.replace(uid=0, gid=0, uname="", gname="", deep=False)


def _collect(globs: list[str], request: Request) -> None:
    counts, names = find("", globs)
    request.out.write(json.dumps(counts).encode() + b"\n")
    sink = Bounded(cast("IO[bytes]", request.out), sys.maxsize)
    if request.gzip:
        sink = Gzip(sink)
    stream: Any = sink  # it is only written to
    with tarfile.open(
        mode="w|", fileobj=stream, format=tarfile.GNU_FORMAT, encoding="utf-8"
    ) as tar:
        todo = names[::-1]
        while todo:
            name = todo.pop()
            todo += [f"{name}/{inner}" for inner in _add(tar, name)]
    sink.close()


def _add(tar: tarfile.TarFile, name: str) -> list[str]:
    """Add one thing; of a directory, return what is in it. What vanished meanwhile is left out, and
    what is no file."""
    try:
        found = os.lstat(f"/{name}")
        info = tarfile.TarInfo(f"./{name}")
        info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
        info.uid, info.gid = found.st_uid, found.st_gid
        if stat.S_ISDIR(found.st_mode):
            inner = sorted(os.listdir(f"/{name}"), reverse=True)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
            return inner
        if stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
            tar.addfile(info)
        if not stat.S_ISREG(found.st_mode):
            return []
        fd = os.open(f"/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            info.size = status.st_size
            tar.addfile(info, cast("IO[bytes]", _Filled(file)))
    return []


class _Filled:
    """A file as long as it was: zeros stand for what was cut off while it was read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")


COMMANDS = {"unpack": unpack, "collect": collect}
