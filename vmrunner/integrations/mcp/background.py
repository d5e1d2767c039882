"""Commands that run in a sandbox while an agent does something else, and their output since."""

from __future__ import annotations

import codecs
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner.errors import VmrunnerError
from vmrunner.model import CommandEnd, CommandOrder, StreamName

if TYPE_CHECKING:
    from vmrunner.api.sandbox import Sandbox

UNREAD_BYTES: Final = 1 << 20  # of a stream that was not asked for yet; the newest


class News(NamedTuple):
    """Output that came since the last time. `dropped`: bytes that were too many to keep; `end`:
    None while it runs."""

    stdout: str
    stderr: str
    dropped: int
    end: CommandEnd | None


class BackgroundCommand:
    """One command, followed in a thread. Safe in threads."""

    def __init__(self, sandbox: Sandbox, order: CommandOrder) -> None:
        """Start it. Raises what a sandbox raises."""
        self.order = order
        self._sandbox = sandbox
        self._news = threading.Condition()
        self._parts = {name: bytearray() for name in StreamName}
        # A character may come in two pieces, and be asked for between them.
        self._texts = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in StreamName
        }
        self._dropped = 0
        self._end: CommandEnd | None = None
        self._error: VmrunnerError | None = None
        sandbox.start(order)
        threading.Thread(target=self._follow, name=f"command {order.id}", daemon=True).start()

    @property
    def ended(self) -> bool:
        """True if nothing more will come of it."""
        return self._end is not None or self._error is not None

    def take(self, wait: float) -> News:
        """Output since the last call; wait up to so many seconds for some. Raises what
        following it raised."""
        with self._news:
            self._news.wait_for(lambda: self.ended or any(self._parts.values()), timeout=wait)
            if self._error is not None and not any(self._parts.values()):
                raise self._error
            out, err = self._text(StreamName.STDOUT), self._text(StreamName.STDERR)
            news = News(out, err, self._dropped, self._end)
            self._dropped = 0
        return news

    def _text(self, stream: StreamName) -> str:
        data = bytes(self._parts[stream])
        self._parts[stream].clear()
        return self._texts[stream].decode(data, final=self.ended)

    def _follow(self) -> None:
        try:
            end = self._sandbox.follow(self.order, self._keep)
        except VmrunnerError as error:
            with self._news:
                self._error = error
                self._news.notify_all()
            return
        with self._news:
            self._end = end
            self._news.notify_all()

    def _keep(self, stream: StreamName, data: bytes) -> None:
        with self._news:
            part = self._parts[stream]
            part += data
            if (more := len(part) - UNREAD_BYTES) > 0:
                del part[:more]
                self._dropped += more
            self._news.notify_all()
