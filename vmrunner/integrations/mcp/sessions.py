"""Sandboxes of an agent's sessions: each is reached by the session that made it alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from vmrunner.api.sandbox import Sandbox
from vmrunner.errors import Conflict, NotFound
from vmrunner.integrations.mcp.background import BackgroundCommand

#: The session where a transport has one only, such as stdio.
ONLY: Final = ""
LONGEST_TTL: Final = 15 * 60.0  # seconds that a sandbox or a build may be asked to live
KNOWN_FOR: Final = 60.0  # … that one is known here after its end
COMMANDS: Final = 64  # of a sandbox, in the background, that run or are known


@dataclass(slots=True)
class _Made:
    sandbox: Sandbox
    until: float  # when it ends by itself
    commands: dict[str, BackgroundCommand] = field(default_factory=dict)


class SessionSandboxes:
    """The sandboxes that live, by session. Safe in threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._all: defaultdict[str, dict[str, _Made]] = defaultdict(dict)

    def add(self, session: str, sandbox: Sandbox, ttl: float = LONGEST_TTL) -> None:
        """Note that a session made it, and forget those of it that are over."""
        now = self._now()
        with self._lock:
            mine = self._all[session]
            late = [name for name, made in mine.items() if now - made.until > KNOWN_FOR]
            over = [mine.pop(name) for name in late]
            mine[sandbox.id] = _Made(sandbox, now + ttl)
        for made in over:
            made.sandbox.close()

    def get(self, session: str, name: str) -> Sandbox:
        """Find one of a session's own. Raises NotFound."""
        return self._find(session, name).sandbox

    def list(self, session: str) -> Sequence[tuple[Sandbox, float]]:
        """Return a session's own that are not over, each with the seconds that it has left."""
        now = self._now()
        with self._lock:
            mine = list(self._all.get(session, {}).values())
        return [(made.sandbox, made.until - now) for made in mine if made.until > now]

    def extend(self, session: str, name: str, seconds: float) -> float:
        """Let one live so much longer; return the seconds that it has left. Raises NotFound, and
        Conflict where it cannot."""
        made = self._find(session, name)
        made.sandbox.extend(seconds)
        with self._lock:
            made.until += seconds
            return made.until - self._now()

    def check_room(self, session: str, name: str) -> None:
        """Raise Conflict where too many commands run in the background: each has a thread."""
        made = self._find(session, name)
        with self._lock:
            running = sum(not command.ended for command in made.commands.values())
        if running >= COMMANDS:
            raise Conflict(
                f"sandbox {name} runs {running} commands in the background, and {COMMANDS} may be",
                hint="sandbox_stop ends one",
            )

    def keep(self, session: str, name: str, command: BackgroundCommand) -> None:
        """Note a command that runs in the background. Of those that ended the oldest go."""
        made = self._find(session, name)
        with self._lock:
            ended = [name for name, other in made.commands.items() if other.ended]
            for old in ended[: max(0, len(made.commands) + 1 - COMMANDS)]:
                del made.commands[old]
            made.commands[command.order.id] = command

    def command(self, session: str, name: str, command: str) -> BackgroundCommand:
        """Find a command of one in the background. Raises NotFound."""
        found = self._find(session, name).commands.get(command)
        if found is None:
            raise NotFound(
                f"sandbox {name} has no command {command!r} in the background",
                hint="sandbox_start starts one",
            )
        return found

    def _find(self, session: str, name: str) -> _Made:
        with self._lock:
            found = self._all.get(session, {}).get(name)
        if found is None:
            raise NotFound(
                f"this session has no sandbox {name!r}",
                hint="sandbox_list names those that it has, sandbox_create makes one",
            )
        return found

    def end(self, session: str, name: str) -> None:
        """End one of a session's own. Raises NotFound."""
        sandbox = self.get(session, name)
        with self._lock:
            self._all[session].pop(name, None)
        end(sandbox)

    def end_session(self, session: str) -> None:
        """End all that a session made, whatever one of them says."""
        with self._lock:
            remaining = self._all.pop(session, {})
        with contextlib.ExitStack() as all_of_them:
            for made in remaining.values():
                all_of_them.callback(end, made.sandbox)

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
