"""What holds a foreground run up: signals at bad moments, a stdout that nobody reads, or that
closed. None of it leaves a VM to its deadline."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.foreground import ROOT, Home, finish, own, read_until
from tests.support.scripted_app import wait_until
from vmrunner.model import Reason, Result

MUCH = ["hex " + "61" * 8000 + "0a"] * 40  # more than a pipe holds


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with own(tmp_path) as home:
        yield home


HAMMERED = """
import os, signal, threading
from vmrunner.cli.signals import Signals

signals, sent = Signals(), 20_000

def hammer():
    for _ in range(sent):
        os.kill(os.getpid(), signal.SIGINT)

with signals.on():
    thread = threading.Thread(target=hammer)
    thread.start()
    while thread.is_alive():
        signals.sleep(0)
    thread.join()
assert 0 < signals.count <= sent
print(signals.code)
"""


def test_a_signal_at_any_moment_stops_only_what_it_should() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HAMMERED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "130\n"), done.stderr


# --- stdout --------------------------------------------------------------------------------------


def started(home: Home, *lines: str, **options: Any) -> subprocess.Popen[bytes]:
    """A run whose log is all in the ledger, however little of it was read."""
    run = home.start("run", *home.job(*MUCH, "say all of it", *lines), **options)
    wait_until(lambda: home.ledger.builds.list() and b"all of it" in _log(home), seconds=60)
    return run


def _log(home: Home) -> bytes:
    (build,) = home.builds()
    return b"".join(chunk.data for chunk in home.ledger.logs.read(build.id))


def test_ctrl_c_is_heard_while_nobody_reads_stdout(home: Home) -> None:
    run = started(home, "sleep 60")
    run.send_signal(signal.SIGINT)
    read_until(run, b"once more leaves at once")
    wait_until(lambda: home.builds()[0].finished, seconds=60, what="its end")
    assert home.builds()[0].result is Result.CANCELLED
    wait_until(lambda: home.ledger.instances.open() == [], seconds=60, what="its VM")
    run.send_signal(signal.SIGINT)
    assert run.wait(40) == 130


def test_what_was_held_up_comes_whole_when_read_again(home: Home) -> None:
    run = started(home)
    out, _ = finish(run)
    assert run.returncode == 0
    assert out == (b"a" * 8000 + b"\n") * 40 + b"all of it\n"


def test_a_lost_reader_ends_the_build_and_its_vm(home: Home) -> None:
    run = started(home, "sleep 1", "say more", *["sleep 0.1", "say more"] * 50, "sleep 600")
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    assert b"Traceback" not in run.stderr.read()
    assert run.wait(40) == 141
    wait_until(lambda: home.builds()[0].finished, seconds=60, what="its end")
    (build,) = home.builds()
    assert (build.result, build.reason) == (Result.CANCELLED, Reason.OWNER_GONE)
    (instance,) = home.ledger.instances.list(build=build.id)
    assert instance.death is not None
    assert home.engines(), "something goes on until its VM is seen gone"


@pytest.mark.parametrize(
    ("words", "code", "results"),
    [(("--step", "exit 7"), 7, [Result.FAILURE]), (("--nope",), 125, [])],
)
def test_a_full_stderr_changes_no_exit_code(
    home: Home, words: tuple[str, ...], code: int, results: list[Result]
) -> None:
    """It was 1, which is the build's own to say, and the build was cancelled."""
    with Path("/dev/full").open("wb") as full:
        run = home.start("run", "--step", "say x", *words, stderr=full)
        out, _ = finish(run)
    assert run.returncode == code
    assert out == b"x\n" * len(results)
    if results:
        assert [build.result for build in home.builds()] == results


def test_a_full_stdout_is_told_in_words(home: Home) -> None:
    with Path("/dev/full").open("wb") as full:
        run = home.start("run", "--", "say x", stdout=full)
        _, err = finish(run)
    assert run.returncode == 125
    assert b"error: what was to be printed cannot be written: No space left" in err
