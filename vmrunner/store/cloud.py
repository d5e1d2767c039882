"""A store in a bucket: S3 and what speaks like it, Google's Cloud Storage, Azure's Blob Storage."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from vmrunner.errors import NotFound, StoreError
from vmrunner.lib.file_bytes import digest_of
from vmrunner.store.base import PIECE, ListedObject, damaged

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

#: Who calls tries again later: one that is away must not be waited for.
_RETRIES: Final[RetryConfig] = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
#: For the whole of a request: a large object over a slow line takes its time.
_TIMEOUT: Final = timedelta(minutes=30)
_CONNECT: Final = timedelta(seconds=5)
_READ: Final = timedelta(seconds=60)
#: obstore's threads live in the process that loaded it. After a fork a call would wait for ever.
_PID: Final = os.getpid()


class CloudStore:
    """Objects of one bucket, below one prefix. Credentials come from the environment, as the
    cloud's own programs find them there."""

    local = False

    def __init__(self, url: str, config: dict[str, Any], *, allow_http: bool) -> None:
        self.url = url
        client: ClientConfig = {
            "timeout": _TIMEOUT,
            "connect_timeout": _CONNECT,
            "read_timeout": _READ,
            "allow_http": allow_http,
        }
        with self._translated("it cannot be opened"):
            opened: Any = from_url  # typed by cloud, and the URL says which
            self._store = opened(url, config=config, client_options=client, retry_config=_RETRIES)

    def put(self, name: str, source: Path, *, digest: str) -> None:
        if digest_of(source) != digest:
            raise damaged(name)
        with self._translated(f"{name} cannot be put"), source.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                self._put(name, b"")
                return
            # Mapped, not read: one write takes all of it, and it may be larger than the memory.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._put(name, data)

    def _put(self, name: str, data: bytes | mmap.mmap) -> None:
        obstore.put(self._store, name, data, use_multipart=False)

    def read(self, name: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        if size == 0:
            return
        span: Any = {"offset": start} if size is None else (start, start + size)
        options: Any = {"range": span} if start or size is not None else {}
        with self._translated(f"{name} cannot be read", name):
            for piece in obstore.get(self._store, name, options=options).stream(PIECE):
                yield bytes(piece)

    def delete(self, name: str) -> None:
        with self._translated(f"{name} cannot be deleted"):
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    def delete_all(self, names: Sequence[str]) -> None:
        with self._translated(f"{len(names)} objects cannot be deleted"):
            obstore.delete(self._store, list(names))

    def list(self, prefix: str) -> Iterator[ListedObject]:
        with self._translated("it cannot be listed"):
            for batch in obstore.list(self._store, prefix.rstrip("/")):
                for found in batch:
                    yield ListedObject(
                        found["path"], found["size"], found["last_modified"].timestamp()
                    )

    def path(self, name: str) -> Path | None:  # noqa: ARG002 - of no host
        return None

    @contextmanager
    def _translated(self, what: str, name: str = "") -> Iterator[None]:
        if os.getpid() != _PID:
            raise StoreError(
                f"store: {self.url}: this process was forked from one that uses it, "
                "and the threads that speak to it stayed there",
                hint="start it anew; with multiprocessing: spawn",
            )
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            if name and isinstance(error, FileNotFoundError):
                raise NotFound(f"the store has no {name}") from None
            lines = str(error).strip().splitlines()
            raise StoreError(
                f"store: {self.url}: {what}: {lines[0][:300] if lines else type(error).__name__}",
                hint="see whether it is reachable, and the credentials of this environment",
            ) from error
