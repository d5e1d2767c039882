"""Files of a sandbox, as its own root sees them: no link leads out of its container."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from vmrunner.errors import ConfigError, Conflict, NotFound
from vmrunner.lib import units
from vmrunner.lib.archive import files as archive
from vmrunner.lib.archive.tar_reader import BadArchive
from vmrunner.lib.file_bytes import pieces_of
from vmrunner.model import FileEntry
from vmrunner.services.sandbox_paths import absolute

if TYPE_CHECKING:
    from vmrunner.api.remote_sandbox import RemoteSandbox
    from vmrunner.services.sandboxes import SandboxClient

PIECE: Final = 256 << 10
Translated = Callable[[], AbstractContextManager[None]]


class SandboxFiles:
    """Paths are absolute, or below /work. Each call raises NotFound for what is not there, Conflict
    for what cannot be done."""

    def __init__(self, client: SandboxClient | RemoteSandbox, translated: Translated) -> None:
        self._client = client
        self._translated = translated

    def read(self, path: str, *, most: int | None = None) -> bytes:
        """Return the bytes of a file. Raises Conflict where they are more than `most`."""
        parts: list[bytes] = []
        size = 0

        def keep(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if most is not None and size > most:
                raise Conflict(f"{path} has more than {units.amount(most)}", hint="read a part")
            parts.append(data)

        with self._translated():
            self._client.read_file(absolute(path), keep)
        return b"".join(parts)

    def read_text(self, path: str, *, most: int | None = None) -> str:
        """Return a file as text: UTF-8, with what is none replaced. `most` as with `read`."""
        return self.read(path, most=most).decode("utf-8", "replace")

    def write(self, path: str, data: bytes | str) -> None:
        """Write a file, whole or not at all, and the directories above it."""
        content = data.encode() if isinstance(data, str) else bytes(data)
        with self._translated():
            self._client.write_file(absolute(path), [content] if content else [])

    def list(self, path: str = "/work") -> list[FileEntry]:
        """Return what is in a directory, by name."""
        with self._translated():
            return self._client.list_files(absolute(path))

    def exists(self, path: str) -> bool:
        """True if there is something of that name; a link counts, wherever it leads."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def stat(self, path: str) -> FileEntry:
        """Return what a path is. A link is not followed."""
        with self._translated():
            return self._client.stat_file(absolute(path))

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all in it."""
        with self._translated():
            self._client.remove_file(absolute(path))

    def make_dir(self, path: str) -> None:
        """Make a directory, and those above it. One that is there stays."""
        with self._translated():
            self._client.make_dir(absolute(path))

    def upload(self, source: Path, to: str) -> None:
        """Copy a directory's content below `to`, or a file into it."""
        target = absolute(to)
        if source.is_dir():
            self._client.unpack_files(target, _Anew(lambda: _packed(source)))
        elif source.is_file():
            there = f"{target.rstrip('/')}/{source.name}"
            self._client.write_file(there, _Anew(lambda: pieces_of(source, PIECE)))
        else:
            raise ConfigError(
                f"source: {source} is no file and no directory", hint="name one that is there"
            )

    def download(self, path: str, to: Path) -> Path:
        """Copy a file to `to`, into it where that is a directory; or what is in a directory below
        `to`. Returns where it is."""
        found = self._client.stat_file(absolute(path))
        if found.kind == "dir":
            with _Extraction(to) as extraction:
                self._client.pack_files(found.path, extraction.take)
            return to
        if found.kind != "file":
            raise Conflict(f"{found.path} is no file and no directory: {found.kind}")
        target = to / Path(found.path).name if to.is_dir() else to
        draft = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with draft.open("wb") as file:
                self._client.read_file(found.path, file.write)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return target


class _Anew:
    """Pieces that a function yields, from the first on each time that somebody iterates."""

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

    def __init__(self, to: Path) -> None:
        self._to = to
        reading, writing = os.pipe()
        self._source, self._sink = os.fdopen(reading, "rb"), os.fdopen(writing, "wb", 0)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._extract, name="download", daemon=True)

    def __enter__(self) -> _Extraction:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._sink.close()
        self._thread.join()
        if self._failed is not None and (kind is None or issubclass(kind, BrokenPipeError)):
            raise self._failed

    def take(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._sink.write(view) :]

    def _extract(self) -> None:
        try:
            archive.extract(self._source, self._to, archive.ArchiveCaps())
            # Zeros after its end: who sends them must not find the pipe closed.
            if len(self._source.read(PIECE)) == PIECE:
                self._failed = BadArchive("archive: it goes on after its end")
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            self._failed = error
        finally:
            self._source.close()
