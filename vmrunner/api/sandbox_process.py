"""A command that runs in a sandbox, while the caller goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from vmrunner.config import field_checks
from vmrunner.errors import Conflict, NotFinished
from vmrunner.lib import cancellation, units
from vmrunner.model import CommandEnd, CommandOrder, StreamName

if TYPE_CHECKING:
    from vmrunner.services.protocols import SandboxAccess

Translated = Callable[[], AbstractContextManager[None]]


class SandboxProcess:
    """A command that runs in a sandbox. Iterating over it yields lines of its stdout, as bytes,
    until it has ended. Its stderr is collected in `stderr_bytes`."""

    def __init__(self, client: SandboxAccess, order: CommandOrder, translated: Translated) -> None:
        self._client = client
        self._order = order
        self._translated = translated
        self._sent = 0
        self._typing = threading.Lock()
        self._closed = False  # its stdin, or the close was begun
        self._broken_off: bytes | None = None  # what was written last, unless all of it was taken
        self._lines: deque[bytes] = deque()
        self._news = threading.Condition()  # a line, or the end
        self._open: list[bytes] = []  # of the line that has not ended
        self._error: BaseException | None = None
        self._end: CommandEnd | None = None
        self._ended = threading.Event()
        self._stderr: list[bytes] = []
        name = f"sandbox command {order.id}"
        threading.Thread(target=self._follow, name=name, daemon=True).start()

    def __repr__(self) -> str:
        return f"<SandboxProcess {self.id} {self._order.title!r}>"

    def __iter__(self) -> Iterator[bytes]:
        while (line := self.take_line()) is not None:
            yield line

    def take_line(self) -> bytes | None:
        """Wait for the next line of its stdout and return it, as bytes; None once it has ended."""
        with self._news:
            while True:
                cancellation.check()
                if self._lines:
                    return self._lines.popleft()
                if self._ended.is_set():
                    break
                self._news.wait(cancellation.LOOK)
        self._raise()
        return None

    def keep_line(self, line: bytes | None) -> None:
        """Put back a line that was taken but not used; it is the next one."""
        if line is not None:
            with self._news:
                self._lines.appendleft(line)

    @property
    def id(self) -> str:
        """Id of the command within its sandbox."""
        return self._order.id

    @property
    def stderr_bytes(self) -> bytes:
        """Stderr so far."""
        return b"".join(self._stderr)

    @property
    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return None if self._end is None else self._end.exit_code

    @property
    def timed_out(self) -> bool:
        """True if it was ended at its timeout."""
        return self._end is not None and self._end.timed_out

    def write(self, data: bytes | str) -> None:
        """Write to its stdin; return once all is taken. Writes of several threads follow one
        another. If a call was interrupted, as by a cancelled task, write the same bytes again:
        they continue where it stopped. Other bytes raise `Conflict`, and so does what comes after
        `close_stdin`."""
        content = field_checks.content(data, "data")
        with self._alone():
            if self._closed:
                raise Conflict("stdin: it is closed", hint="write before close_stdin()")
            if self._broken_off not in (None, content):
                raise Conflict(
                    f"stdin: the write of {len(self._broken_off or b'')} bytes before was broken "
                    "off, and some may have been taken",
                    hint="write the same bytes again, or close_stdin()",
                )
            self._broken_off = content
            with self._translated():
                self._client.send_input(self.id, self._sent, content)
            self._sent += len(content)
            self._broken_off = None

    def close_stdin(self) -> None:
        """Close its stdin. What is closed stays so."""
        with self._alone(), self._translated():
            self._closed = True
            self._client.send_input(self.id, self._sent, b"", last=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Have its stdin, once no other thread has it."""
        while not self._typing.acquire(timeout=cancellation.LOOK):
            cancellation.check()
        try:
            yield
        finally:
            self._typing.release()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to all of its processes. A command that has ended gets none."""
        checked = field_checks.whole(number, "number", 1, 64)
        with self._translated():
            self._client.signal(self.id, checked)

    def wait(self, timeout: units.Duration | None = None) -> int:
        """Wait for its end and return its exit code. Raises `NotFinished` if `timeout` runs out
        first; the command runs on."""
        seconds = None if timeout is None else units.duration(timeout, "timeout")
        until = None if seconds is None else time.monotonic() + seconds
        while not self._ended.wait(_left(until)):
            cancellation.check()
            if until is None or time.monotonic() < until:
                continue
            raise NotFinished(f"{self._order.title[:80]} has not ended yet", hint="wait again")
        self._raise()
        assert self._end is not None
        return self._end.exit_code

    def _raise(self) -> None:
        if self._error is not None:
            with self._translated():
                raise self._error

    def _follow(self) -> None:
        try:
            self._end = self._client.run(self._order, self._take)
        except BaseException as error:  # noqa: BLE001 - raised by who asks
            self._error = error
        finally:
            with self._news:
                if self._open:
                    self._lines.append(b"".join(self._open))
                self._ended.set()
                self._news.notify_all()

    def _take(self, stream: StreamName, data: bytes) -> None:
        if stream is StreamName.STDERR:
            self._stderr.append(data)
            return
        head, end, rest = data.rpartition(b"\n")
        with self._news:
            if end:
                lines = b"".join([*self._open, head]).split(b"\n")
                self._lines.extend(line + end for line in lines)
                self._open.clear()
            if rest:
                self._open.append(rest)
            self._news.notify_all()


def _left(until: float | None) -> float:
    """Seconds to wait before the next look."""
    if until is None:
        return cancellation.LOOK
    return max(0.0, min(cancellation.LOOK, until - time.monotonic()))
