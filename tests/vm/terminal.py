"""The command line at a terminal, with somebody at the keyboard."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from typing import Self

from tests.vm.home import VMRUNNER, Home, text


class Terminal:
    """One vmrunner in a session of its own, whose controlling terminal is a pty that we hold: a
    Ctrl-C typed here is a signal from the kernel to all that is in the foreground there."""

    def __init__(self, home: Home, *args: str) -> None:
        self._keyboard, screen = pty.openpty()
        self.seen = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", VMRUNNER, *args],
            env=home.env | {"TERM": "xterm"},
            cwd=home.root / "cwd",
            stdin=screen,
            stdout=screen,
            stderr=screen,
        )
        os.close(screen)

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def wait_for(self, pattern: bytes, *, seconds: float = 180) -> re.Match[bytes]:
        """Until `pattern` is on the screen, after what was waited for before."""
        end = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end() :]
                return match
            assert time.monotonic() < end, f"waited for {pattern!r}, saw: {self._last}"
            assert self._read(1), f"it ended without {pattern!r}: {self._last}"

    def end(self, *, seconds: float = 180) -> int:
        """Its exit code; what else it shows goes to `seen`."""
        end = time.monotonic() + seconds
        while self._read(1):
            assert time.monotonic() < end, f"it does not end: {self._last}"
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._keyboard)

    @property
    def _last(self) -> str:
        return text(self.seen[-2000:])

    def _read(self, seconds: float) -> bool:
        """Take in what is shown within `seconds`. False: nobody will show anything more."""
        if not select.select([self._keyboard], [], [], seconds)[0]:
            return True
        try:
            self.seen += os.read(self._keyboard, 65536)
        except OSError:  # EIO: the last one who had it open has closed it
            return False
        return True
