"""Ctrl-C and SIGTERM while a command is there for a build."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from vmrunner.cli import exit_codes, output
from vmrunner.lib.wakeup import Listener


class Signals:
    """Ctrl-C and SIGTERM, counted: while this is on, neither ends the process by itself. What was
    ignored before (by `nohup`, or in a script's background) stays so."""

    def __init__(self, *, second_leaves: bool = False) -> None:
        """`second_leaves`: the second one raises ExitNow, wherever the main thread is."""
        self._second_leaves = second_leaves
        self.first: signal.Signals | None = None
        self.count = 0
        # No `threading.Event`: a signal that comes while its lock is held by the very thread that
        # the handler runs in would wait for ever.
        self._came = Listener(None, "signals")

    @contextlib.contextmanager
    def on(self) -> Iterator[Signals]:
        try:
            with self._caught_here():
                yield self
        finally:
            self._came.close()

    @property
    def code(self) -> int:
        """The exit code that the first of them asks for."""
        return exit_codes.INTERRUPTED if self.first is signal.SIGINT else exit_codes.TERMINATED

    def sleep(self, seconds: float) -> None:
        """Wait; a signal ends it early, as `wake` does."""
        self._came.wait(seconds)

    def wake(self) -> None:
        self._came.set()

    @contextlib.contextmanager
    def _caught_here(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in caught if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._caught) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
        self.count += 1
        self._came.set()
        if self._second_leaves and self.count > 1:
            raise exit_codes.ExitNow(self.code)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP be as Ctrl-C, once: what is being made is ended, and not left."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for caught_signal in before:
            signal.signal(caught_signal, signal.SIG_IGN)
        raise exit_codes.ExitNow(128 + number)

    caught = (signal.SIGTERM, signal.SIGHUP)
    before = {
        number: handler
        for number in caught
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def tidied_up(message: str) -> Iterator[None]:
    """Let SIGTERM break off what runs here, as Ctrl-C does, so that it leaves nothing half-made;
    then say `message`."""
    came = False

    def broken_off(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, broken_off)
    try:
        yield
    except KeyboardInterrupt:
        if not came:
            raise
        output.say(f"ended by SIGTERM: {message}")
        raise exit_codes.ExitNow(exit_codes.TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
