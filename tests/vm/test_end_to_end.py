"""The main promise, through the real command line on real VMs. A boot costs a minute under
emulation, so each test looks at all that one or two builds can show."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from datetime import datetime
from pathlib import Path
from textwrap import dedent

import pytest

from tests.vm.home import Home, text, wait_until

pytestmark = pytest.mark.vm

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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "hello.txt").write_text("grüße")
    (source / "ignored.txt").write_text("no")
    (source / ".gitignore").write_text("ignored.txt\n")
    return source


def test_a_build_sees_its_own_world_and_brings_back_what_it_made(
    home: Home, source: Path, tmp_path: Path
) -> None:
    came = tmp_path / "came"
    document = tmp_path / "result.json"
    (tmp_path / "token").write_text("hunter2-hunter2")
    done = home.run(
        *("run", "--network", "none", "--source", str(source)),
        *("-e", "GREETING=a b'c$d", "--secret", f"TOKEN=@{tmp_path / 'token'}"),
        *("-a", "out/**", "--artifacts-to", str(came), "--result-file", str(document)),
        *("--", "sh", "-c", PROBE + AWKWARD),
    )
    assert done.returncode == 0, text(done.stderr)
    result, reason, code, build = last_line(done.stderr)
    assert (result, reason, code) == ("success", "exit_code", "0")

    probe, _, rest = done.stdout.partition(b"out 0\n")
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
    assert home.run("logs", build).stdout == done.stdout

    assert (came / "out/deep/a.whl").read_text() == "wheel\n"
    assert (came / "out/binary").read_bytes() == b"\0\xff"
    item = json.loads(document.read_text())["items"][0]
    assert (item["id"], item["result"], item["exit_code"]) == (build, "success", 0)
    shown = text(home.run("show", build).stdout)
    for phase in ("queued", "booting", "running", "collecting"):
        assert phase in shown
    ledger = b"".join(path.read_bytes() for path in home.data.glob("ledger.db*"))
    assert b"hunter2-hunter2" not in ledger
    assert b"hunter2-hunter2" not in done.stdout + done.stderr


def test_the_caller_sees_the_builds_own_exit_code(home: Home) -> None:
    done = home.run("run", "--network", "none", "--", "sh", "-c", "echo before; exit 7")
    assert done.returncode == 7, text(done.stderr)
    assert done.stdout == b"before\n"
    assert last_line(done.stderr)[:3] == ("failure", "exit_code", "7")


def test_kill_minus_nine_of_a_foreground_run_then_reap_ends_its_vm_at_once(home: Home) -> None:
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


@pytest.mark.timeout(1200)
def test_with_nothing_of_ours_running_each_vm_ends_by_its_deadline(home: Home) -> None:
    """`kill -9` in three phases; then no vmrunner runs until all VMs are past their deadline."""
    for phase, ttl in (("booting", 120), ("running", 360), ("collecting", 360)):
        run = home.start(
            *("run", "--network", "none", "--timeout", f"{ttl - 50}s", "--ttl", f"{ttl}s"),
            *("-a", "big", "--name", phase, "--", "sh", "-c", script_for(phase)),
        )
        try:
            wait_until(
                lambda phase=phase: any(
                    row["name"] == phase and row["state"] == phase for row in home.builds()
                ),
                seconds=ttl - 60,  # beside other tests' VMs on few cores a boot takes minutes
                what=f"a build to be {phase}",
            )
        finally:
            run.send_signal(signal.SIGKILL)
            run.communicate()
    deadlines = [datetime.fromisoformat(r["deadline"]).timestamp() for r in home.instances()]
    assert len(deadlines) == 3
    wait_until(
        lambda: not home.processes(), seconds=max(deadlines) - time.time() + 60, what="three ends"
    )
    assert home.run("reap", timeout=180).returncode == 0


def script_for(phase: str) -> str:
    return "truncate -s 1000000000 big" if phase == "collecting" else "sleep 500"
