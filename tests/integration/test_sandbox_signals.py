"""Ctrl-C at `vmrunner sandbox run`, at a ledger and at a server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vmrunner
from tests.support import http_service
from tests.support.boxed_app import HostCommands
from tests.support.command_line import isolated
from tests.support.foreground import Home, finish, own, read_until
from tests.support.scripted_app import wait_until

pytestmark = pytest.mark.timeout(120)
HEEDS = "trap 'echo caught; exit 3' INT; echo begun; while :; do sleep 0.05; done"
DEAF = "trap '' INT; echo $$; while :; do sleep 0.05; done"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with own(tmp_path, program="tests.support.boxed_app") as home:
        yield home


@pytest.fixture(params=["ledger", "server"])
def place(
    request: pytest.FixtureRequest, home: Home, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Home, str]]:
    """A command line, and a sandbox that it reaches."""
    if request.param == "ledger":
        code, out, err = home.run("sandbox", "create")
        assert code == 0, err
        yield home, out.decode().strip()
        return
    commands = HostCommands()
    with http_service.service(isolated(home.root, monkeypatch)) as service:
        service.use(replace(service.parts, sandbox=lambda _: commands))
        service.runner._host.ensure("fake", staying=True)
        sandbox = vmrunner.Sandbox.create(runner=service.runner)
        server = {"VMRUNNER_SERVER": service.url, "VMRUNNER_TOKEN": service.token()}
        home.env |= server
        yield home, sandbox.id
        wait_until(lambda: all(command.end for command in commands.running.values()))


def begun(place: tuple[Home, str], script: str) -> tuple[subprocess.Popen[bytes], bytes]:
    """A command that runs, and its first line."""
    home, sandbox = place
    run = home.start("sandbox", "run", sandbox, "--", "sh", "-c", script)
    assert run.stdout is not None
    return run, run.stdout.readline()


def test_ctrl_c_is_the_commands_and_a_second_one_leaves(place: tuple[Home, str]) -> None:
    run, line = begun(place, HEEDS)
    assert line == b"begun\n"
    run.send_signal(signal.SIGINT)
    out, err = finish(run)
    assert (run.returncode, out[-7:]) == (130, b"caught\n")  # sh tells of its `sleep` too
    assert b"vmrunner: sent SIGINT to the command; once more leaves at once" in err

    run, line = begun(place, DEAF)
    run.send_signal(signal.SIGINT)
    read_until(run, b"once more leaves at once")
    run.send_signal(signal.SIGINT)
    finish(run)
    assert run.returncode == 130
    with contextlib.suppress(ProcessLookupError):  # where this took so long that it was killed
        os.killpg(int(line), signal.SIGKILL)
