from __future__ import annotations

from vmrunner.session.ssh.channel_io import CommandIO, WakeupPipe


class Wire:
    heard = 0.0

    def hang_up(self) -> None:
        """Nobody waits for it."""


class Buffer:
    def set_event(self, event: object) -> None:
        """Nobody is asleep here."""


class Channel:
    """A peer whose last bytes come, and whose end comes, between any two looks at it."""

    def __init__(self, *, quiet_looks: int) -> None:
        self.in_buffer = self.in_stderr_buffer = Buffer()
        self.exit_status = 0
        self._looks = quiet_looks
        self._data = b"the last"

    def _come(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    @property
    def closed(self) -> bool:
        return self._come()

    def recv_ready(self) -> bool:
        return self._come() and bool(self._data)

    def recv(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    def recv_stderr_ready(self) -> bool:
        self._come()
        return False

    def settimeout(self, seconds: float) -> None:
        """Nothing is sent."""

    def shutdown_write(self) -> None:
        """Nothing is sent."""


def test_what_comes_just_before_the_end_is_not_lost() -> None:
    for looks in range(12):
        got = bytearray()
        alarm = WakeupPipe()
        alarm.wakes = 1  # never asleep
        exchange = CommandIO(Wire(), alarm, got.extend, [], lambda: -1.0)
        exchange.run(Channel(quiet_looks=looks))
        assert bytes(got) == b"the last", f"after {looks} looks"
        assert exchange.exit_code == 0
