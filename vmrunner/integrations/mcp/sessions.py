"""Sandboxes of an agent's sessions: each is reached by the session that made it alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from vmrunner.api.sandbox import Sandbox
from vmrunner.errors import NotFound

#: The session where a transport has one only, such as stdio.
ONLY: Final = ""
LONGEST_TTL: Final = 15 * 60.0  # seconds that a sandbox or a build may be asked to live
KNOWN_FOR: Final = LONGEST_TTL + 60  # … that one is known here: then it has ended by itself


class _Made(NamedTuple):
    sandbox: Sandbox
    at: float


class SessionSandboxes:
    """The sandboxes that live, by session. Safe in threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._all: defaultdict[str, dict[str, _Made]] = defaultdict(dict)

    def add(self, session: str, sandbox: Sandbox) -> None:
        """Note that a session made it, and forget those of it that are over."""
        now = self._now()
        with self._lock:
            mine = self._all[session]
            over = [mine.pop(name) for name, one in list(mine.items()) if now - one.at > KNOWN_FOR]
            mine[sandbox.id] = _Made(sandbox, now)
        for one in over:
            one.sandbox.close()

    def get(self, session: str, name: str) -> Sandbox:
        """Find one of a session's own. Raises NotFound."""
        with self._lock:
            found = self._all.get(session, {}).get(name)
        if found is None:
            raise NotFound(f"this session has no sandbox {name!r}", hint="sandbox_create makes one")
        return found.sandbox

    def end(self, session: str, name: str) -> None:
        """End one of a session's own. Raises NotFound."""
        sandbox = self.get(session, name)
        with self._lock:
            self._all[session].pop(name, None)
        end(sandbox)

    def end_session(self, session: str) -> None:
        """End all that a session made, whatever one of them says."""
        with self._lock:
            left = self._all.pop(session, {})
        with contextlib.ExitStack() as all_of_them:
            for one in left.values():
                all_of_them.callback(end, one.sandbox)

    def close(self) -> None:
        """End them all."""
        with contextlib.ExitStack() as all_of_them:
            for session in list(self._all):
                all_of_them.callback(self.end_session, session)


def end(sandbox: Sandbox) -> None:
    """End one, with its VM, and let go of it."""
    try:
        sandbox.kill()
    finally:
        sandbox.close()
