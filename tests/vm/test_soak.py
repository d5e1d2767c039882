"""Builds in a row, at once, and killed at random moments: afterwards nothing of them is left.
`make soak` asks for more of each."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from contextlib import closing
from typing import Any

import pytest

from tests.vm.home import Home, processes_with, text, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(14400)]

RUN = ("run", "--network", "none", "--")
WHOLE = b"begun\nended\n"
LIFE = 100.0  # seconds that a build of these takes, when three boot at once under emulation
NEWBORN = 15 * 60.0  # seconds in which absence says nothing of a VM that was asked for


@pytest.mark.long  # in `make test` each home shows that nothing is left; two at once: test_terminal
def test_builds_in_a_row_then_at_once_leave_nothing(
    home: Home, request: pytest.FixtureRequest
) -> None:
    for n in range(request.config.getoption("--soak-builds")):
        done = home.run(*RUN, "sh", "-c", f"echo build {n}; exit {n % 2}")
        assert (done.returncode, done.stdout) == (n % 2, b"build %d\n" % n), text(done.stderr)
        home.assert_nothing_left()

    runs = [
        home.start(*RUN, "sh", "-c", f"echo at once {n}")
        for n in range(request.config.getoption("--soak-parallel"))
    ]
    for n, run in enumerate(runs):
        out, err = run.communicate(timeout=1200)
        assert (run.returncode, out) == (0, b"at once %d\n" % n), text(err)
    assert {row["state"] for row in home.builds()} == {"finished"}
    assert {row["state"] for row in home.instances()} == {"gone"}


def test_random_kills_leave_nothing_and_do_nothing_twice(
    home: Home, request: pytest.FixtureRequest
) -> None:
    """Foreground runs, three at once, each killed at its own moment; after each kill, a `reap`
    while the others go on. The runs share an engine: often it dies with the one that is killed."""
    seed, kills = (request.config.getoption(f"--soak-{name}") for name in ("seed", "kills"))
    chance = random.Random(seed)
    print(f"seed {seed}")
    for first in range(0, kills, 3):
        killed_together(home, [chance.uniform(0, LIFE) for _ in range(min(3, kills - first))])


def killed_together(home: Home, moments: list[float]) -> None:
    begun = time.monotonic()
    script = "echo begun; sleep 10; echo ended; exit 3"
    runs = [home.start(*RUN, "sh", "-c", script) for _ in moments]
    too_late = 0
    for run, moment in sorted(zip(runs, moments, strict=True), key=lambda each: each[1]):
        try:
            out, err = run.communicate(timeout=max(0.0, begun + moment - time.monotonic()))
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            check_while_others_live(home)
            reaped = home.run("reap", timeout=120)
            assert reaped.returncode == 0, text(reaped.stderr)
        else:  # a kill beside it, and its own reap, did it no harm
            assert (run.returncode, out) == (3, WHOLE), text(err)
            too_late += 1
    print(f"moments {[round(moment, 1) for moment in moments]}, {too_late} too late")
    wait_until(lambda: closed(home), seconds=NEWBORN + 300, what="each row to be closed")
    home.assert_nothing_left()
    for build in home.builds():
        check_ended(home, build)
    ended = {(b["result"], b["reason"]) for b in home.builds()}
    assert ended <= {("cancelled", "owner_gone"), ("failure", "exit_code")}


def check_while_others_live(home: Home) -> None:
    """What holds at any moment, a moment after a kill too: no VM without a row, and no process of
    a VM whose row says that it is gone."""
    directories = {path.name for path in (home.data / "qemu/instances").glob("[!.]*")}
    rows = {row["id"]: row["state"] for row in home.instances()}
    assert {name.split("_")[1] for name in directories} <= rows.keys(), "intent before effect"
    gone = [name for name, state in rows.items() if state == "gone"]
    assert list(processes_with(gone)) == [], "gone means seen dead"


def closed(home: Home) -> bool:
    """After a `reap`. A kill between a row and its VM leaves a row whose VM was never born: it is
    closed when two sweeps after its newborn window have not seen it, as promise 5 says."""
    if not home.items("vm", "ls"):
        return True
    assert home.run("reap", timeout=120).returncode == 0
    return False


def check_ended(home: Home, build: dict[str, Any]) -> None:
    """Once, or not at all."""
    attempts = [row["attempt"] for row in home.instances() if row["build"] == build["id"]]
    log = home.run("logs", build["id"]).stdout
    assert build["state"] == "finished"
    assert len(attempts) == len(set(attempts)), "no attempt had two VMs"
    assert WHOLE.startswith(log), "its steps ran once"
    if build["result"] == "failure":
        assert (build["exit_code"], log) == (3, WHOLE)
    with closing(sqlite3.connect(home.data / "ledger.db")) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
