"""`ssh`, `sandbox shell` and `sandbox exec` with nothing but a server's URL and a token."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.entered import Entered, entered
from tests.support.entered_server import node
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.sshd import Sshd, wait_for
from vmrunner.cli.remote_command import EscapeKeys

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]  # the code of this tree, where that is a copy too
PROGRAM = [sys.executable, "-m", "vmrunner"]


@pytest.fixture
def world(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entered]:
    with entered(tmp_path, sshd, monkeypatch) as found:
        found.running("b-2", sandbox_ttl=600.0, steps=())
        yield found


def environment(world: Entered) -> dict[str, str]:
    """Of a client that has nothing else."""
    home = world.http.root / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TERM": "xterm",
        "PYTHONPATH": str(ROOT),
        "VMRUNNER_SERVER": world.http.url,
        "VMRUNNER_TOKEN": world.token(),
    }


def run(world: Entered, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *words], input=data, env=environment(world), capture_output=True, check=False,
        timeout=60,
    )  # fmt: skip


class Seat:
    """A vmrunner at a terminal that a test types at."""

    def __init__(self, settings: dict[str, str], *words: str) -> None:
        self.keyboard, screen = pty.openpty()
        self.resize(91, 29)
        self.before = termios.tcgetattr(screen)
        self.screen = screen
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *PROGRAM, *words],
            env=settings, stdin=screen, stdout=screen, stderr=screen,
        )  # fmt: skip
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def shows(self, pattern: bytes) -> None:
        until = time.monotonic() + 60
        while not re.search(pattern, self.seen):
            assert time.monotonic() < until, self.seen
            if select.select([self.keyboard], [], [], 0.5)[0]:
                self.seen += os.read(self.keyboard, 65536)

    def end(self) -> int:
        code = self.process.wait(60)
        while select.select([self.keyboard], [], [], 0.1)[0]:
            self.seen += os.read(self.keyboard, 65536)
        assert termios.tcgetattr(self.screen) == self.before, "the terminal is as it was"
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keyboard)
        os.close(self.screen)


@contextlib.contextmanager
def seated(world: Entered, *words: str) -> Iterator[Seat]:
    seat = Seat(environment(world), *words)
    try:
        yield seat
    finally:
        seat.close()


def test_a_person_enters_a_build_over_a_server(world: Entered) -> None:
    with seated(world, "ssh", "b-1") as seat:
        seat.type(b"PS1=; stty size; echo $((40 + 2))\r")
        seat.shows(rb"29 91\r\n42\r\n")
        seat.resize(70, 20)
        seat.type(b"sleep 0.2; stty size\r")
        seat.shows(rb"20 70\r\n")
        seat.type(b"sh -c 'echo be''gun; exec sleep 600'\r")
        seat.shows(rb"begun\r\n")
        seat.type(b"\x03")
        seat.type(b"exit 7\r")
        assert seat.end() == 7


def test_pipes_carry_every_byte(world: Entered) -> None:
    evil = bytes(range(256)) * 2000
    done = run(world, "ssh", "b-1", "--", "sh", "-c", "cat; echo x >&2; exit 9", data=evil)
    assert (done.returncode, done.stdout, done.stderr) == (9, evil, b"x\n")
    done = run(world, "sandbox", "exec", "-i", "b-2", "--", "wc", "-c", data=evil)
    assert (done.returncode, done.stdout.split()) == (0, [b"512000"])
    done = run(world, "sandbox", "exec", "-e", "A=b c", "b-2", "--", "sh", "-c", 'echo "$A"; cat')
    assert (done.returncode, done.stdout) == (0, b"b c\n"), "without -i nothing is sent"


def test_a_shell_of_a_sandbox_comes_over_a_server(world: Entered) -> None:
    with seated(world, "sandbox", "shell", "b-2") as seat:
        seat.type(b"PS1=; echo $OF_THE_BUILD $((40 + 2))\r")
        seat.shows(rb"yes 42\r\n")
        seat.type(b"exit 5\r")
        assert seat.end() == 5
    with seated(
        world, "sandbox", "exec", "-it", "b-2", "--", "sh", "-c", "tty; read x; exit $x"
    ) as seat:
        seat.shows(rb"/dev/pts/\d+\r\n")
        seat.type(b"6\r")
        assert seat.end() == 6
    done = run(world, "sandbox", "exec", "-it", "b-2", "--", "sh")
    assert (done.returncode, b"no terminal" in done.stderr) == (125, True)


def test_our_own_troubles_are_125(world: Entered) -> None:
    for words, message in (
        (("ssh", "b-nope", "--", "true"), b"b-nope"),
        (("sandbox", "shell", "b-1", "--", "true"), b"b-1 is a build, no sandbox"),
        (("sandbox", "exec", "b-2"), b"command: missing"),
    ):
        done = run(world, *words)
        assert (done.returncode, message in done.stderr) == (125, True), done.stderr
        assert b"Traceback" not in done.stderr


def test_a_signal_here_is_the_commands(world: Entered) -> None:
    line = "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    with subprocess.Popen(
        [*PROGRAM, "ssh", "b-1", "--", "sh", "-c", line],
        env=environment(world), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"heard\n"
        assert process.wait(30) == 143


def test_a_server_that_dies_is_told_plainly(world: Entered) -> None:
    with seated(world, "ssh", "b-1") as seat:
        seat.type(b"PS1=; echo $((40 + 2))\r")
        seat.shows(rb"42\r\n")
        world.http.listener.close()
        assert seat.end() == 125
    assert b"vmrunner: error: " in seat.seen
    assert b"Traceback" not in seat.seen


def test_who_types_can_always_leave(world: Entered) -> None:
    with seated(world, "ssh", "b-1") as seat:
        seat.type(b"PS1=; echo $$ $((40 + 2)); exec sleep 600\r")
        seat.shows(rb"42\r\n")
        found = re.search(rb"(\d+) 42\r\n", seat.seen)
        assert found is not None
        seat.type(b"\r~.")
        assert seat.end() == 129
    wait_for(lambda: not Path(f"/proc/{int(found[1])}").exists())


def test_a_node_that_is_killed_is_told_plainly(tmp_path: Path) -> None:
    """As by the kernel: nobody says farewell."""
    with node(tmp_path) as (process, url, token):
        settings = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm",
            "PYTHONPATH": str(ROOT), "VMRUNNER_SERVER": url, "VMRUNNER_TOKEN": token,
        }  # fmt: skip
        seat = Seat(settings, "ssh", "b-1")
        try:
            seat.type(b"PS1=; echo $((40 + 2))\r")
            seat.shows(rb"42\r\n")
            os.killpg(process.pid, signal.SIGKILL)
            assert seat.end() == 125
            assert b"broke off: the server is gone" in seat.seen
        finally:
            seat.close()


@pytest.mark.parametrize(
    ("keys", "sent", "leaves"),
    [
        (b"~.", b"", True), (b"a~.", b"a~.", False), (b"a\r~.b", b"a\r", True),
        (b"~~x", b"~x", False), (b"~a~.", b"~a~.", False), (b"\n~\r~.", b"\n~\r", True),
    ],
)  # fmt: skip
def test_escape_keys_count_at_a_lines_begin(keys: bytes, sent: bytes, leaves: bool) -> None:
    """However they come."""
    assert EscapeKeys().feed(keys) == (sent, leaves)
    apart, data = EscapeKeys(), b""
    for key in keys:
        typed, rest = apart.feed(bytes([key]))
        data += typed
        if rest:
            break
    assert (data, rest) == (sent, leaves)
