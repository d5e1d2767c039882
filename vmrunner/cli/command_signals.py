"""Ctrl-C and SIGTERM while a command of a sandbox is followed: they are the command's."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from vmrunner.cli import output
from vmrunner.cli.signals import Signals
from vmrunner.errors import NotFound, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.api.sandbox import Sandbox

KILL_GRACE: Final = 5.0  # seconds from the signal to KILL
SIGNAL_RETRY: Final = 0.2  # seconds until a command that was not started yet is signalled again
IDLE: Final = 3600.0


@contextlib.contextmanager
def passed_on(sandbox: Sandbox, command: str) -> Iterator[Signals]:
    """Hand the first signal on to all processes of the command, and kill those that are still there
    after a while. The second one leaves at once."""
    signals, over = Signals(second_leaves=True), threading.Event()
    # Made ahead: a signal's handler must start no thread.
    thread = threading.Thread(target=_pass_on, args=(sandbox, command, signals, over), daemon=True)
    with signals.on():
        thread.start()
        try:
            yield signals
        finally:
            over.set()
            signals.wake()
        thread.join()


def _pass_on(sandbox: Sandbox, command: str, signals: Signals, over: threading.Event) -> None:
    while signals.first is None:
        if over.is_set():
            return
        signals.sleep(IDLE)
    output.say(
        f"sent {signals.first.name} to the command; once more leaves at once, and it may run on"
    )
    with contextlib.suppress(VmrunnerError, OSError):  # who follows hears why
        _send(sandbox, command, signals.first, over)
        if not over.wait(KILL_GRACE):
            _send(sandbox, command, signal.SIGKILL, over)


def _send(sandbox: Sandbox, command: str, number: int, over: threading.Event) -> None:
    """Send a signal, once the command was started."""
    while not over.is_set():
        try:
            sandbox.send_signal(command, number)
        except NotFound:
            over.wait(SIGNAL_RETRY)
            continue
        return
