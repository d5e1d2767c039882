"""What a signal does to the command of a sandbox that is followed."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from vmrunner.cli import command_signals
from vmrunner.cli.command_signals import passed_on
from vmrunner.errors import NotFound, SandboxOver


class Sent:
    """A sandbox that knows its command from the second signal on, and ends it at KILL."""

    def __init__(self) -> None:
        self.attempts = 0
        self.signals: list[int] = []
        self.ended = threading.Event()

    def send_signal(self, command: str, number: int) -> None:
        self.attempts += 1
        if self.attempts == 1:
            raise NotFound(f"no command {command!r} was started")
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.ended.set()


class Over(Sent):
    def send_signal(self, command: str, number: int) -> None:
        self.ended.set()
        raise SandboxOver("sandbox b-1 is over")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_signals, "KILL_GRACE", 0.01)
    monkeypatch.setattr(command_signals, "SIGNAL_RETRY", 0.01)


def passed(sandbox: Any, number: signal.Signals = signal.SIGINT) -> int:
    with passed_on(sandbox, "c1") as signals:
        signal.raise_signal(number)
        assert sandbox.ended.wait(30)
    return signals.code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_heeds_no_signal_is_killed(number: signal.Signals) -> None:
    sent = Sent()
    assert passed(sent, number) == 128 + number
    assert sent.signals == [number, signal.SIGKILL]


def test_a_sandbox_that_is_over_ends_it_quietly() -> None:
    assert passed(Over()) == 130


def test_nothing_is_sent_without_a_signal() -> None:
    sent: Any = Sent()
    with passed_on(sent, "c1") as signals:
        pass
    assert (sent.attempts, signals.first) == (0, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
