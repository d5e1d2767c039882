"""A stop that takes too long ends the process, whatever hangs and whatever cannot be had."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from vmrunner.runtime import stop_watchdog
from vmrunner.runtime.stop_watchdog import StopWatchdog

#: A process that hangs in its stop. `{hold}` is what it holds meanwhile.
HANGS = """
import logging, threading
from vmrunner.runtime import stop_watchdog
logging.basicConfig()
watchdog = stop_watchdog.StopWatchdog(0.05)
watchdog.start()
{hold}
watchdog.arm()
threading.Event().wait()
"""


def hanging(hold: str) -> subprocess.CompletedProcess[str]:
    program = HANGS.format(hold=hold)
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30)


def test_what_hangs_in_a_stop_ends_with_status_one() -> None:
    done = hanging("")
    assert done.returncode == 1
    assert done.stderr.count("stopping takes more than") == 1


def test_a_log_that_hangs_too_keeps_nothing() -> None:
    hold = "stop_watchdog.LAST_WORDS = 0.2; logging.root.handlers[0].acquire()"
    assert hanging(hold).returncode == -signal.SIGALRM


def test_a_stop_needs_no_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    watchdog = StopWatchdog(0.01, lambda _seconds: over.set())
    watchdog.start()

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    watchdog.arm()
    assert over.wait(30)


def test_the_time_runs_from_the_first_signal_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Ctrl-C again and again must not put the end off."""
    minutes = itertools.count(0.0, 60.0)
    monkeypatch.setattr(stop_watchdog, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    over = threading.Event()
    watchdog = StopWatchdog(3600, lambda _seconds: over.set())
    for _ in range(100):
        watchdog.arm()
    watchdog.start()
    assert over.wait(30)


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "idle"])
def test_who_ended_in_time_is_left_alone(stops: bool) -> None:
    calls: list[float] = []
    watchdog = StopWatchdog(3600, calls.append)
    watchdog.start()
    if stops:
        watchdog.arm()
    watchdog.disarm()
    watchdog._thread.join(30)
    assert not watchdog._thread.is_alive()
    assert calls == []
