"""An end to each answer as a whole: the HTTP client's own limit begins anew with every byte, and a
server that sends one each few seconds held its caller for ever.

The limit is that of the thread which asks: all reads of one request are that thread's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_THREAD: Final = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound all that this thread reads meanwhile; past it a read raises TimeoutError."""
    _THREAD.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _THREAD.end = None


def bound(client: Any) -> Any:
    """The same `httpx2.Client`, whose reads obey `within`."""
    # httpx2 has no word for its pools' backend, by proxies or not.
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)
    return client


class _Backend:
    """A `NetworkBackend`, as httpx2's own transport has it."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, **options: Any) -> Any:
        return _Stream(self._backend.connect_tcp(*args, **options))

    def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        return _Stream(self._backend.connect_unix_socket(*args, **options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream:
    """A `NetworkStream`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = getattr(_THREAD, "end", None)
        if end is not None:
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("the answer takes too long as a whole")
            timeout = remaining if timeout is None else min(timeout, remaining)
        found: bytes = self._stream.read(max_bytes, timeout)
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> Any:
        return _Stream(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
