"""Files of a sandbox, as its own root sees them: no link leads out of its container."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError, Conflict, NotFound
from vmrunner.lib import dirfd, units
from vmrunner.lib.archive import files as archive
from vmrunner.lib.archive.tar_reader import BadArchive
from vmrunner.lib.file_bytes import pieces_of
from vmrunner.model import FileEntry
from vmrunner.services.sandbox_paths import absolute

if TYPE_CHECKING:
    from vmrunner.services.protocols import SandboxAccess

log = logging.getLogger("vmrunner")

PIECE: Final = 256 << 10
MEMORY: Final = 256 << 20  # bytes that `read` takes at most, unless said
DISK: Final = 2 << 30  # … and `download`
OMISSIONS_TOLD: Final = 10  # warnings of one download about what was left out
Translated = Callable[[], AbstractContextManager[None]]


class SandboxFiles:
    """Files of a sandbox. Paths are absolute, or relative to /work. Each call raises `NotFound` if
    there is no such file, and `Conflict` if the file system refuses."""

    def __init__(self, client: SandboxAccess, translated: Translated) -> None:
        self._client = client
        self._translated = translated

    def read(self, path: str, *, most: int = MEMORY) -> bytes:
        """Return the bytes of a file. Raises `Conflict` beyond `most` bytes (256 MiB), since a
        sandbox may have endless files."""
        parts: list[bytes] = []
        take = _bounded(parts.append, path, field_checks.whole(most, "most", 0, sys.maxsize))
        with self._translated():
            self._client.read_file(absolute(path), take)
        return b"".join(parts)

    def read_text(self, path: str, *, most: int = MEMORY) -> str:
        """Return a file as text: UTF-8, with invalid bytes replaced. `most` as with `read`."""
        return self.read(path, most=most).decode("utf-8", "replace")

    def write(self, path: str, data: bytes | str) -> None:
        """Write a file, whole or not at all. Directories above it are made."""
        content = field_checks.content(data, "data")
        with self._translated():
            self._client.write_file(absolute(path), [content] if content else [])

    def list(self, path: str = "/work") -> list[FileEntry]:
        """Return the entries of a directory, sorted by name."""
        with self._translated():
            return self._client.list_files(absolute(path))

    def exists(self, path: str) -> bool:
        """Return True if there is an entry of that name; a broken link counts too."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def stat(self, path: str) -> FileEntry:
        """Return the entry at a path: kind, size in bytes, mode. A link is not followed."""
        with self._translated():
            return self._client.stat_file(absolute(path))

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with its content."""
        with self._translated():
            self._client.remove_file(absolute(path))

    def make_dir(self, path: str) -> None:
        """Make a directory, and those above it. An existing one stays as it is."""
        with self._translated():
            self._client.make_dir(absolute(path))

    def upload(self, source: str | os.PathLike[str], to: str = "/work") -> None:
        """Copy a file, or the content of a directory, into the directory `to`. If the sandbox
        refuses a directory half-way, a part of it may be there; the error says so."""
        here, target = _place(source, "source"), absolute(to)
        with self._translated():
            if here.is_dir():
                self._upload_directory(here, target)
            elif here.is_file():
                path = f"{target.rstrip('/')}/{here.name}"
                self._client.write_file(path, _Anew(lambda: pieces_of(here, PIECE)))
            else:
                raise ConfigError(
                    f"source: {here} is no file and no directory", hint="name one that is there"
                )

    def _upload_directory(self, here: Path, target: str) -> None:
        try:
            self._client.unpack_files(target, _Anew(lambda: _packed(here)))
        except (ConfigError, Conflict) as error:
            message, *rest = error.args
            error.args = (f"{message}; a part of {here} may be in {target} now", *rest)
            raise

    def download(
        self, path: str, to: str | os.PathLike[str] = ".", *, most: str | int = DISK
    ) -> Path:
        """Copy a file to `to` (into it, if that is a directory), or the content of a directory
        below `to`. Returns its place. An existing file keeps its mode. Raises `Conflict` or
        `BadArchive` beyond `most` bytes."""
        here, source, cap = _place(to, "to"), absolute(path), units.size(most, "most")
        with self._translated():
            # Of what the VM says of itself, its kind alone counts here: no name comes from there.
            kind = self._client.stat_file(source).kind
            if kind == "dir":
                if here.exists() and not here.is_dir():
                    raise ConfigError(f"to: {here} is no directory", hint="name one, or a new one")
                with _Extraction(here, archive.ArchiveCaps(unpacked=cap)) as extraction:
                    self._client.pack_files(source, extraction.take)
                extraction.tell_omitted(source)
                return here
            if kind != "file":
                raise Conflict(f"{source} is no file and no directory: {kind}")
            return self._fetch(source, here / Path(source).name if here.is_dir() else here, cap)

    def _fetch(self, path: str, target: Path, most: int) -> Path:
        if not target.parent.is_dir():
            raise ConfigError(f"to: {target.parent} is no directory", hint="make it first")
        above, name = target.parent.absolute(), os.fsencode(target.name)
        try:
            if not dirfd.is_replaceable(target):
                raise ConfigError(f"to: {target} is no file", hint="name a file, or a new one")
            with dirfd.opened(above, make=False) as parent:
                dirfd.probe(parent, name)
        except OSError as error:
            raise ConfigError(
                f"to: {target} cannot be written: {error.strerror}",
                hint="name a place in a directory of yours",
            ) from error
        with (
            dirfd.opened(above, make=False) as parent,
            dirfd.replacing(parent, name, 0o666) as draft,
        ):
            self._client.read_file(path, _bounded(draft.write, path, most))
            if target.exists():
                os.fchmod(draft.fileno(), target.stat().st_mode & 0o777)
        return target


def _place(path: str | os.PathLike[str], field: str) -> Path:
    """A place on this machine. An empty text is none: `Path` takes it for the current directory."""
    if not isinstance(path, str | os.PathLike) or not (name := os.fspath(path)) or "\0" in name:
        raise ConfigError(f"{field}: {path!r} is no path", hint='such as "src", or "."')
    return Path(name)


def _bounded(take: Callable[[bytes], object], path: str, most: int) -> Callable[[bytes], object]:
    """Return a receiver that raises Conflict for more bytes than that."""
    remaining = most

    def bounded(data: bytes) -> None:
        nonlocal remaining
        remaining -= len(data)
        if remaining < 0:
            raise Conflict(f"{path} has more than {units.amount(most)}", hint="see `most`")
        take(data)

    return bounded


class _Anew:
    """Pieces that a function yields, from the first on each time that it is iterated."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces()


def _packed(directory: Path) -> Iterator[bytes]:
    """A tar of a directory, as it is made."""
    reading, writing = os.pipe()
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            with os.fdopen(writing, "wb", PIECE) as pipe:
                archive.pack(directory, _Written(pipe))
        except BaseException as error:  # noqa: BLE001 - raised by who reads
            failed.append(error)

    thread = threading.Thread(target=pack, name="upload", daemon=True)
    thread.start()
    with os.fdopen(reading, "rb", 0) as source:
        while data := source.read(PIECE):
            yield data
    thread.join()
    if failed:
        raise failed[0]


class _Written:
    """A pipe that knows how much went into it, as tarfile asks."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._size = 0

    def write(self, data: bytes) -> int:
        self._size += len(data)
        return self._pipe.write(data)

    def tell(self) -> int:
        return self._size


class _Extraction:
    """Unpacks a tar that comes in pieces, as attacker input."""

    def __init__(self, to: Path, caps: archive.ArchiveCaps) -> None:
        self._to = to
        self._caps = caps
        reading, writing = os.pipe()
        self._source, self._sink = os.fdopen(reading, "rb"), os.fdopen(writing, "wb", 0)
        self._failed: BaseException | None = None
        self._omitted: Sequence[str] = ()
        self._thread = threading.Thread(target=self._extract, name="download", daemon=True)

    def __enter__(self) -> _Extraction:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._sink.close()
        self._thread.join()
        if self._failed is not None and (kind is None or issubclass(kind, BrokenPipeError)):
            raise self._failed

    def tell_omitted(self, path: str) -> None:
        """Warn of what came and was left out."""
        for why in self._omitted[:OMISSIONS_TOLD]:
            log.warning("%s: %s: left out", path, why)
        if more := self._omitted[OMISSIONS_TOLD:]:
            log.warning("%s: %d more: left out", path, len(more))

    def take(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._sink.write(view) :]

    def _extract(self) -> None:
        try:
            self._omitted = archive.extract(self._source, self._to, self._caps).omitted
            # Zeros after its end: who sends them must not find the pipe closed.
            if len(self._source.read(PIECE)) == PIECE:
                self._failed = BadArchive("archive: it goes on after its end")
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            self._failed = error
        finally:
            self._source.close()
