"""A terminal in a sandbox, for programs that want to be at one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Self

from vmrunner.config import field_checks
from vmrunner.errors import Conflict, NotFinished
from vmrunner.lib import cancellation, units

if TYPE_CHECKING:
    from vmrunner.api.sandbox_process import Translated
    from vmrunner.services.protocols import OpenedTerminal

UNREAD_BYTES: Final = 1 << 20  # bytes that were shown and not read
LARGEST: Final = (1 << 16) - 1  # columns and rows that Linux can tell a program


class Terminal:
    """A command at a terminal of a sandbox. Iterating over it yields its output, as bytes, until it
    has ended. At most 1 MiB of unread output is kept; a command that shows more has to wait.
    `close`, or the end of a `with`, hangs up on all that runs there."""

    def __init__(self, opened: OpenedTerminal, translated: Translated) -> None:
        self._opened = opened
        self._translated = translated
        self._news = threading.Condition()  # something shown, read, ended or closed
        self._shown = bytearray()
        self._waiting = 0  # callers that wait for its end, for which nothing is held back
        self._error: BaseException | None = None
        self._exit_code: int | None = None
        self._over = False
        self._typing = threading.Lock()
        threading.Thread(target=self._follow, name="sandbox terminal", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        while shown := self.read():
            yield shown

    @property
    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._exit_code

    def read(self, timeout: units.Duration | None = None) -> bytes:
        """Wait for new output and return all of it; b"" once the command has ended. Raises
        `NotFinished` if `timeout` runs out first."""
        with self._news:
            self._until(lambda: self._shown or self._over, timeout, "it has shown nothing yet")
            if shown := bytes(self._shown):
                self._shown.clear()
                self._news.notify_all()
                return shown
        self._raise()
        return b""

    def unread(self, shown: bytes) -> None:
        """Put back output that was read but not used; the next `read` returns it first."""
        with self._news:
            self._shown[:0] = shown
            self._news.notify_all()

    def write(self, data: bytes | str) -> None:
        """Type text or bytes; return once they are sent. Raises `Conflict` once it has ended."""
        content = field_checks.content(data, "data")
        with self._typing, self._translated():
            if self._over or not self._opened.send(content):
                self._raise()
                raise Conflict("the terminal's command has ended", hint="open another one")

    def resize(self, columns: int, rows: int) -> None:
        """Change its size; its program is told."""
        size = checked_size(columns, rows)
        with self._translated():
            if not self._over:
                self._opened.resize(*size)

    def wait(self, timeout: units.Duration | None = None) -> int:
        """Wait for its end and return its exit code. Meanwhile the command never waits for a
        reader: the newest 1 MiB is kept. Raises `NotFinished` if `timeout` runs out first; the
        command runs on."""
        with self._news:
            self._waiting += 1
            self._news.notify_all()
            try:
                self._until(lambda: self._over, timeout, "the command has not ended yet")
            finally:
                self._waiting -= 1
        self._raise()
        if self._exit_code is None:
            raise Conflict("the terminal was closed before its command ended")
        return self._exit_code

    def close(self) -> None:
        """Hang up on all that runs there. A second call does nothing."""
        with self._news:
            self._over = True
            self._news.notify_all()
        self._opened.close()

    def _until(self, true: Callable[[], object], timeout: units.Duration | None, what: str) -> None:
        """Wait until it is so. The lock is held."""
        until = None
        if timeout is not None:
            until = time.monotonic() + units.duration(timeout, "timeout")
        while not true():
            cancellation.check()
            remaining = cancellation.LOOK if until is None else until - time.monotonic()
            if remaining <= 0:
                raise NotFinished(f"terminal: {what}", hint="wait again")
            self._news.wait(min(remaining, cancellation.LOOK))

    def _raise(self) -> None:
        if self._error is not None:
            with self._translated():
                raise self._error

    def _follow(self) -> None:
        try:
            while (shown := self._opened.receive()) != b"":
                self._keep(shown or b"")
            self._exit_code = self._opened.exit_code
        except BaseException as error:  # noqa: BLE001 - raised by who asks
            self._error = error
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()
            self._opened.close()

    def _keep(self, shown: bytes) -> None:
        with self._news:
            self._shown += shown
            self._news.notify_all()
            while len(self._shown) > UNREAD_BYTES and not self._waiting and self._opened.is_open:
                self._news.wait(cancellation.LOOK)
            if self._waiting:
                del self._shown[:-UNREAD_BYTES]


def checked_size(columns: int, rows: int) -> tuple[int, int]:
    """Return a terminal's size. Raises ConfigError."""
    return (
        field_checks.whole(columns, "columns", 1, LARGEST),
        field_checks.whole(rows, "rows", 1, LARGEST),
    )
