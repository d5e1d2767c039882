"""The main promise, through the real command line on real VMs. A boot costs a minute under
emulation, so tests share one where they can."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.vm.home import Home, text, wait_until
from tests.vm.terminal import Terminal

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

LAST = re.compile(r"^vmrunner: result=(\S+) reason=(\S+) exit_code=(\S*) build=(\S+)(?: step=.+)?$")

PROBE = dedent(
    r"""
    set -e
    echo "uname=$(uname -r)"
    echo "uid=$(id -u)"
    echo "processes=$(ls -d /proc/[0-9]* | wc -l)"
    echo "caps=$(sed -n 's/^CapEff:\t//p' /proc/self/status)"
    echo "nnp=$(sed -n 's/^NoNewPrivs:\t//p' /proc/self/status)"
    echo "seccomp=$(sed -n 's/^Seccomp:\t//p' /proc/self/status)"
    echo "root=$(awk '$2 == "/" { print $3 }' /proc/mounts)"
    echo "cwd=$PWD"
    echo "greeting=$GREETING"
    echo "secret=$TOKEN"
    echo "source=$(cat hello.txt)"
    echo "ignored=$(ls ignored.txt 2>/dev/null || echo absent)"
    echo "host=$(ls -d /HOST_ONLY 2>/dev/null || echo absent)"
    echo "interfaces=$(ls /sys/class/net | tr '\n' ' ')"
    echo made > /root/made
    mkdir -p out/deep
    echo wheel > out/deep/a.whl
    printf '\000\377' > out/binary
    """
)

# Order of two streams, every byte value, invalid UTF-8, a long line, no newline at the end.
AWKWARD = dedent(
    r"""
    i=0; while [ $i -lt 500 ]; do echo "out $i"; echo "err $i" >&2; i=$((i+1)); done
    python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) + b"\n")'
    python3 -c 'import sys; sys.stdout.buffer.write(b"x" * 3000000 + b"\n")'
    printf 'last, without a newline'
    """
)
AWKWARD_OUTPUT = (
    b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(500))
    + bytes(range(256))
    + b"\n"
    + b"x" * 3_000_000
    + b"\nlast, without a newline"
)


def last_line(err: bytes) -> tuple[str, str, str, str]:
    """result, reason, exit code and build id from the last line that `run` prints."""
    match = LAST.match(text(err).rstrip().splitlines()[-1])
    assert match, text(err)
    return match[1], match[2], match[3], match[4]


class Done(NamedTuple):
    """A build that came to its end, by `vmrunner run`; what it left is in `place`."""

    home: Home
    place: Path
    out: bytes
    err: bytes
    code: int


@pytest.fixture(scope="module", autouse=True)
def forsaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Three builds in as many phases, whose processes are killed in one moment. Their VMs idle
    until their deadlines while the other tests go on."""
    home = Home.make(tmp_path_factory.mktemp("forsaken") / "home")
    home.builds()  # makes the ledger
    runs = []
    try:
        for phase, ttl in (("collecting", LIFE), ("running", LIFE), ("booting", 120)):
            if phase == "booting":
                wait_until(lambda: phases(home) == PHASES[:2], seconds=LIFE - 40, what="two phases")
            runs.append(
                home.start(
                    *("run", "--network", "none", "--timeout", f"{ttl - 50}s", "--ttl", f"{ttl}s"),
                    *("-a", "big", "--name", phase, "--", "sh", "-c", script_for(phase)),
                )
            )
        wait_until(lambda: phases(home) == PHASES, seconds=110, what="three phases")
    finally:
        for run in runs:
            run.send_signal(signal.SIGKILL)
        for run in runs:
            run.communicate()
    yield home
    home.assert_nothing_left()


LIFE = 120  # seconds, in which two clones of a template come to their phases
PHASES = ["collecting", "running", "booting"]  # also the builds' names


def phases(home: Home) -> list[str]:
    """The states of those builds that are where their names say, in that order. Read where they
    lie: a clone boots for a few seconds, and no command is as fast."""
    rows = home.read("SELECT name FROM builds WHERE name = state")
    return [phase for phase in PHASES if (phase,) in rows]


def script_for(phase: str) -> str:
    return "truncate -s 2000000000 big" if phase == "collecting" else "sleep 500"


@pytest.fixture(scope="module")
def done(forsaken: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    place = tmp_path_factory.mktemp("done")
    source = place / "source"
    source.mkdir()
    (source / "hello.txt").write_text("grüße")
    (source / "ignored.txt").write_text("no")
    (source / ".gitignore").write_text("ignored.txt\n")
    subprocess.run(["git", "init", "-q", source], check=True)  # elsewhere nothing is ignored
    (place / "token").write_text("hunter2-hunter2")
    steps = [PROBE + AWKWARD, "exit 7"]
    job = {"steps": steps, "network": "none", "artifacts": [{"path": "out/**", "always": True}]}
    (place / "job.yml").write_text(json.dumps({"version": 1, "jobs": {"job": job}}))
    home = Home.make(place / "home")
    done = home.run(
        *("run", "-f", str(place / "job.yml"), "job", "--source", str(source)),
        *("-e", "GREETING=a b'c$d", "--secret", f"TOKEN=@{place / 'token'}"),
        *("--artifacts-to", str(place / "came"), "--result-file", str(place / "result.json")),
        *("--keep-on-failure", "20m"),
    )
    yield Done(home, place, done.stdout, done.stderr, done.returncode)
    assert home.run("cancel", last_line(done.stderr)[3], timeout=180).returncode == 0
    home.assert_nothing_left()


def test_a_build_sees_its_own_world_and_returns_artifacts(done: Done) -> None:
    build = last_line(done.err)[3]
    probe, _, rest = done.out.partition(b"out 0\n")
    seen = dict(line.partition("=")[::2] for line in text(probe).splitlines())
    assert seen["uname"] != os.uname().release
    assert seen["uid"] == "0"
    assert int(seen["processes"]) < 10, "the container sees only its own processes"
    assert int(seen["caps"], 16) == 0b11111011, (
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID"
    )
    assert (seen["nnp"], seen["seccomp"]) == ("1", "2")
    assert seen["root"] == "overlay"
    assert seen["cwd"] == "/work"
    assert seen["greeting"] == "a b'c$d"
    assert seen["secret"] == "***"
    assert (seen["source"], seen["ignored"], seen["host"]) == ("grüße", "absent", "absent")

    assert b"out 0\n" + rest == AWKWARD_OUTPUT
    assert done.home.run("logs", build).stdout == done.out

    assert (done.place / "came/out/deep/a.whl").read_text() == "wheel\n"
    assert (done.place / "came/out/binary").read_bytes() == b"\0\xff"
    item = json.loads((done.place / "result.json").read_text())["items"][0]
    assert (item["id"], item["result"], item["exit_code"]) == (build, "failure", 7)
    shown = text(done.home.run("show", build).stdout)
    for phase in ("queued", "booting", "running", "collecting"):
        assert phase in shown
    ledger = b"".join(path.read_bytes() for path in done.home.data.glob("ledger.db*"))
    assert b"hunter2-hunter2" not in ledger
    assert b"hunter2-hunter2" not in done.out + done.err


def test_the_caller_sees_the_builds_own_exit_code(done: Done) -> None:
    assert done.code == 7, text(done.err)
    assert last_line(done.err)[:3] == ("failure", "exit_code", "7")


def test_a_failed_builds_container_is_there_to_be_entered(done: Done) -> None:
    build = last_line(done.err)[3]
    look = 'cat /root/made hello.txt; hostname; pwd; echo "$GREETING" $TOKEN; ls /sys/class/net'
    command = ("ssh", build, "--container", "--", "sh", "-c", f"{look}; exit 5")
    inside = done.home.run(*command, timeout=180)
    assert (inside.returncode, text(inside.stdout).splitlines()) == (
        5,
        ["made", "grüßebuild", "/work", "a b'c$d hunter2-hunter2", "lo"],
    ), text(inside.stderr)
    with Terminal(done.home, "ssh", build, "--container") as shell:
        shell.type("tty; cat /root/made; exit 4\n")
        shell.wait_for(rb"/dev/pts/\d+\r\nmade\r\n")
        assert shell.end() == 4


def test_reap_ends_the_vm_of_a_killed_run_at_once(home: Home) -> None:
    run = home.start(*("run", "--network", "none", "--", "sh", "-c", "echo started; sleep 500"))
    assert run.stdout is not None
    assert run.stdout.readline() == b"started\n"
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert home.processes(), "its VM runs on: nobody was there to end it"

    began = time.monotonic()
    reaped = home.run("reap", timeout=180)
    assert reaped.returncode == 0, text(reaped.stderr)
    wait_until(lambda: not home.processes(), seconds=60, what="the VM to end")
    assert time.monotonic() - began < 60
    (build,) = home.builds()
    assert (build["state"], build["result"], build["reason"]) == (
        "finished",
        "cancelled",
        "owner_gone",
    )


def test_without_us_running_each_vm_ends_by_its_deadline(forsaken: Home) -> None:
    """No vmrunner of theirs has run since they were killed."""
    deadlines = [
        datetime.fromisoformat(row["deadline"]).timestamp() for row in forsaken.instances()
    ]
    assert len(deadlines) == 3
    wait_until(
        lambda: not forsaken.processes(),
        seconds=max(0.0, max(deadlines) - time.time()) + 60,
        what="three ends",
    )
    assert forsaken.run("reap", timeout=180).returncode == 0
