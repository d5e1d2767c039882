"""A sandbox's terminal: over a real sshd, with a docker in the VM that runs plain processes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vmrunner
from tests.support import docker_terminal
from tests.support.sandboxes import SandboxWorld, sandbox
from tests.support.session_world import sshd, world
from tests.support.sshd import wait_for
from vmrunner import aio
from vmrunner.api import terminal as api_terminal
from vmrunner.api.errors import BuildLost
from vmrunner.api.terminal import Terminal
from vmrunner.errors import ConfigError, Conflict, NotFinished, NotFound, SandboxOver
from vmrunner.model import BuildState, Reason, Result
from vmrunner.session.ssh.channel_io import PIECE

pytestmark = pytest.mark.timeout(120)
__all__ = ["sandbox", "sshd", "world"]
SIZES = "trap 'stty size' WINCH; stty size; while :; do sleep 0.02; done"


class Kept(vmrunner.Sandbox):
    """A sandbox whose build is `row`."""

    def __init__(self, world: SandboxWorld) -> None:
        runner: Any = SimpleNamespace(
            service=SimpleNamespace(sandbox=lambda _: world.client),
            settled=lambda _: world.row,
        )
        super().__init__(SimpleNamespace(id="b-1"), runner)  # type: ignore[arg-type]


@pytest.fixture
def box(sandbox: SandboxWorld) -> Kept:
    programs = sandbox.world.sshd.programs
    shutil.copyfile(docker_terminal.__file__, programs / "docker")
    (programs / "docker").chmod(0o755)
    (programs / "status").write_text("running")
    (programs / "env").write_text("export OF_THE_BUILD=yes\n")
    with contextlib.suppress(FileNotFoundError):
        (programs / "work").unlink()
    (programs / "work").symlink_to(sandbox.world.guest.work)
    return Kept(sandbox)


def until(terminal: Terminal, word: bytes) -> bytes:
    """What it shows, up to a word."""
    seen = b""
    while word not in seen:
        shown = terminal.read(timeout=60)
        assert shown, seen
        seen += shown
    return seen


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_shell_is_at_a_terminal_with_its_environment(box: Kept) -> None:
    env = {"A": "it's $1", "TERM": "dumb"}
    with box.terminal(["sh", "-i"], columns=101, rows=33, env=env) as terminal:
        terminal.write('PS1=; stty size; echo $((40 + 2)) $TERM $OF_THE_BUILD "$A"\n')
        assert b"33 101\r\n" in until(terminal, b"42 dumb yes it's $1\r\n")
        terminal.write("sh -c 'echo be''gun; exec sleep 600'\n")
        until(terminal, b"begun\r\n")
        terminal.write(b"\x03")  # it ends what is in front, and no shell
        terminal.write("exit 7\n")
        assert terminal.wait(timeout=60) == terminal.exit_code == 7
        terminal.read()
        assert list(terminal) == []
        with pytest.raises(Conflict, match="has ended"):
            terminal.write("x")


def test_a_program_hears_of_another_size(box: Kept) -> None:
    with box.terminal(SIZES) as terminal:
        until(terminal, b"24 80\r\n")
        with pytest.raises(NotFinished, match="shown nothing yet"):
            terminal.read(timeout=0.01)
        with pytest.raises(ConfigError, match="rows: 0 is too little"):
            terminal.resize(40, 0)
        terminal.resize(40, 120)
        until(terminal, b"120 40\r\n")
        terminal.unread(b"again")
        assert terminal.read() == b"again"
        with pytest.raises(NotFinished, match="not ended yet"):
            terminal.wait(timeout=0.01)
        terminal.write(b"\x03")
        assert terminal.wait(timeout=60) == 130


def test_hostile_bytes_come_as_they_are(
    box: Kept, sandbox: SandboxWorld, capfd: pytest.CaptureFixture[str]
) -> None:
    evil = bytes(range(256)) + b"\x1b]0;owned\x07\x1b[2J\x1e" * 3
    (sandbox.world.guest.work / "evil").write_bytes(evil)
    with box.terminal("stty raw; cat evil") as terminal:
        assert b"".join(terminal) == evil
    assert capfd.readouterr() == ("", "")


def test_a_flood_is_held_back_and_its_end_is_kept(
    box: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_terminal, "UNREAD_BYTES", 100_000)
    with box.terminal("echo $$; exec yes") as terminal:
        pid = int(until(terminal, b"\n").split()[0])
        looks: list[bytes] = []

        def is_held() -> bool:
            looks.append(Path(f"/proc/{pid}/io").read_bytes())
            return len(set(looks[-20:])) == 1 and len(looks) >= 20

        wait_for(lambda: len(terminal._shown) > 100_000)
        wait_for(is_held)
        assert len(terminal._shown) <= 100_000 + PIECE
        terminal.write(b"\x03")
        assert terminal.wait(timeout=60) == 130
        assert len(terminal.read()) == 100_000


def test_hanging_up_ends_what_runs_there(box: Kept) -> None:
    """The terminal itself stays: docker has it."""
    with box.terminal("sleep 600 & echo $! $$; wait") as terminal:
        child, shell = map(int, until(terminal, b"\n").split())
    wait_for(lambda: not lives(child) and not lives(shell))
    with pytest.raises(Conflict, match="was closed"):
        terminal.wait()
    assert terminal.exit_code is None
    terminal.close()


@pytest.mark.parametrize(
    ("given", "kind", "error"),
    [
        ({"command": ["nosuch", "x"]}, NotFound, "terminal: nosuch: not found"),
        ({"command": ["/no/such"]}, NotFound, "terminal: /no/such: not found"),
        ({"cwd": "/no/such"}, Conflict, "terminal: .*can't cd to /no/such"),
    ],
)
def test_a_command_that_does_not_begin_is_told(
    box: Kept, given: dict[str, Any], kind: type[Exception], error: str
) -> None:
    with pytest.raises(kind, match=error):
        box.terminal(given.pop("command", None), **given)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"command": ""}, "command: empty"),
        ({"cwd": "work"}, "cwd: 'work' is no path"),
        ({"env": {"A B": "1"}}, "env"),
        ({"columns": 0}, "columns: 0 is too little"),
        ({"rows": -1}, "rows: -1 is too little"),
        ({"rows": 10**9}, "rows: 1000000000 is too much .*at most 65535"),
        ({"columns": True}, "columns: True is not a whole number"),
    ],
)
def test_what_cannot_be_is_refused_beforehand(given: dict[str, Any], error: str) -> None:
    nobody: Any = SimpleNamespace(client=None)
    with pytest.raises(ConfigError, match=error):
        Kept(nobody).terminal(given.pop("command", None), **given)


def test_a_container_that_does_not_run_is_told(box: Kept, sandbox: SandboxWorld) -> None:
    (sandbox.world.sshd.programs / "status").write_text("exited")
    with pytest.raises(Conflict, match="the build's container is exited"):
        box.terminal()


def test_a_lost_connection_is_told_with_what_came_before(box: Kept, sandbox: SandboxWorld) -> None:
    with box.terminal("echo one; exec sleep 600") as terminal:
        wait_for(lambda: terminal._shown)
        sandbox.world.proxy.cut()
        assert terminal.read() == b"one\r\n"
        with pytest.raises(Conflict, match="broke off half-way"):
            terminal.read()
        with pytest.raises(Conflict, match="broke off half-way"):
            terminal.write("x")


def test_the_end_of_its_sandbox_is_told(box: Kept, sandbox: SandboxWorld) -> None:
    with box.terminal(["cat"]) as terminal:
        over = {"state": BuildState.FINISHED, "result": Result.SUCCESS, "reason": Reason.USER}
        sandbox.row = replace(sandbox.row, **over)
        sandbox.world.proxy.cut()
        with pytest.raises(SandboxOver, match="success"):
            terminal.read()
        sandbox.row = replace(sandbox.row, result=Result.ERROR, reason=Reason.VM_LOST)
        with pytest.raises(BuildLost):
            terminal.wait()
    with pytest.raises(BuildLost):
        box.terminal()


def test_letting_go_of_a_sandbox_closes_its_terminals(
    box: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_terminal, "UNREAD_BYTES", 1000)
    quiet, loud = box.terminal(["cat"]), box.terminal(["yes"])
    wait_for(lambda: len(loud._shown) > 1000)
    box._client.close()
    for terminal in (quiet, loud):
        with pytest.raises(Conflict, match="was closed"):
            terminal.wait(timeout=60)


def test_a_coroutine_that_is_cancelled_loses_nothing(box: Kept) -> None:
    async def main() -> bytes:
        kept = aio.AsyncSandbox(box)
        async with await kept.terminal("read -r x; echo $x; read -r x; exit 5") as terminal:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(terminal.read(), 0.05)
            await terminal.write("one\n")
            seen = b""
            while b"one\r\none\r\n" not in seen:
                seen += await terminal.read(timeout=60)
            await terminal.resize(40, 10)
            await terminal.write("two\n")
            assert await terminal.wait(timeout=60) == terminal.exit_code == 5
            return seen + b"".join([shown async for shown in terminal])

    assert asyncio.run(main()) == b"one\r\none\r\ntwo\r\n"
