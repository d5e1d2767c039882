"""Sandboxes in real VMs: as a user of the command line and of Python has them."""

from __future__ import annotations

import ast
import contextlib
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.home import VMRUNNER, Home, text, wait_until
from tests.vm.terminal import Terminal

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).parents[2] / "examples/sandboxes"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str]]:
    """A home, and a sandbox in it that its tests share."""
    home = Home.make(tmp_path_factory.mktemp("home") / "home")
    # The template is for this policy; what is open here is not asked for.
    done = home.run("sandbox", "create", "--network", "open", "--ttl", "20m", "--max-ttl", "30m")
    assert done.returncode == 0, text(done.stderr)
    sandbox = done.stdout.decode().strip()
    yield home, sandbox
    assert home.run("sandbox", "rm", sandbox).returncode == 0
    wait_until(lambda: not home.open_vms() and not home.open_builds(), seconds=120, what="its end")
    (row,) = [build for build in home.builds() if build["id"] == sandbox]
    assert (row["result"], row["reason"]) == ("success", "user")
    home.assert_nothing_left()


def run(shared: tuple[Home, str], *words: str, code: int = 0) -> bytes:
    home, sandbox = shared
    done = home.run("sandbox", "run", *words[:-3], sandbox, "--", *words[-3:], timeout=120)
    assert done.returncode == code, (done.returncode, text(done.stderr))
    return done.stdout


def test_commands_have_streams_codes_and_timeouts(shared: tuple[Home, str]) -> None:
    home, sandbox = shared
    assert run(shared, "sh", "-c", "echo out; exit 7", code=7) == b"out\n"
    assert run(shared, "--timeout", "1", "sh", "-c", "sleep 100 & sleep 100", code=124) == b""
    running = run(shared, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert b"sleep 100" not in running.replace(b"sh -c", b"")
    assert b"$ sh -c 'echo out; exit 7'\nout\n" in home.run("logs", sandbox).stdout


def test_a_command_is_as_confined_as_a_step(shared: tuple[Home, str]) -> None:
    status = run(shared, "sh", "-c", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status")
    assert status.split() == [
        b"CapEff:", b"00000000000000fb", b"NoNewPrivs:", b"1", b"Seccomp:", b"2",
    ]  # fmt: skip
    assert run(shared, "sh", "-c", "cat /proc/self/cgroup").startswith(b"0::/command-x-")


def test_a_killed_shell_takes_what_it_started_with_it(shared: tuple[Home, str]) -> None:
    run(shared, "sh", "-c", "sleep 101 & kill -9 $PPID; sleep 102", code=137)
    shown = run(shared, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")
    assert not {b"101", b"102"} & set(shown.split(b"\n"))


def test_no_path_of_a_file_leads_out_of_the_container(shared: tuple[Home, str]) -> None:
    home, sandbox = shared
    run(shared, "sh", "-c", "echo inside >/etc/hostname.test; ln -s / /work/out")
    path = "/work/out/etc/hostname.test"
    assert home.run("sandbox", "cp", f"{sandbox}:{path}", "got").returncode == 0
    assert (home.root / "cwd/got").read_text() == "inside\n"
    for path in (
        "/usr/lib/vmrunner/supervisor",
        "/work/out/run/vmrunner/job.json",
        "/proc/1/root/run/vmrunner/job.json",
        "/proc/self/root/run/vmrunner/job.json",
    ):
        assert home.run("sandbox", "cp", f"{sandbox}:{path}", "not").returncode != 0
    assert not (home.root / "cwd/not").exists()


def test_directories_go_in_and_come_out(shared: tuple[Home, str]) -> None:
    home, sandbox = shared
    source = home.root / "cwd/source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/data").write_bytes(bytes(range(256)) * 4096)
    assert home.run("sandbox", "cp", "source", f"{sandbox}:/work/in").returncode == 0
    run(shared, "sh", "-c", "mkdir /work/back; cp -r /work/in/sub /work/back")
    assert home.run("sandbox", "cp", f"{sandbox}:/work/back", "back").returncode == 0
    assert (home.root / "cwd/back/sub/data").read_bytes() == bytes(range(256)) * 4096


def test_hostile_commands_do_not_keep_others_from_running(shared: tuple[Home, str]) -> None:
    home, sandbox = shared
    bomb = home.start(
        "sandbox", "run", "--timeout", "20", sandbox, "--",
        "sh", "-c", "f() { f | f & }; f; yes & yes >&2 & cat /dev/zero >/work/full & wait",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(
        lambda: (
            home.run("sandbox", "run", "--timeout", "30", sandbox, "--", "true").returncode
            in (0, 2, 124, 125, 126)
        ),
        seconds=120,
        what="an answer beside it",
    )
    assert bomb.wait(timeout=120) == 124
    run(shared, "sh", "-c", "rm -f /work/full; echo still here")


TERMINALS = """
import sys, vmrunner

def until(terminal, word, seen=b""):
    while word not in seen:
        seen += terminal.read(timeout=60)
    return seen

sandbox = vmrunner.Sandbox.connect(sys.argv[1])
sizes = "trap 'stty size' WINCH; stty size; echo $TERM; while :; do sleep 0.1; done"
with sandbox.terminal(sizes, columns=101, rows=33, env={"TERM": "vt100"}) as terminal:
    print(until(terminal, b"vt100\\r\\n"))
    terminal.resize(40, 10)
    until(terminal, b"10 40\\r\\n")
    terminal.write(b"\\x03")
    print(terminal.wait(timeout=60))
with sandbox.terminal("yes & sleep 104 & exec sleep 105") as terminal:
    until(terminal, b"y\\r\\ny\\r\\n")
with sandbox.terminal() as terminal:
    terminal.write("test -t 0 && exit 5\\n")
    print(terminal.wait(timeout=60))
try:
    sandbox.terminal(["nosuch"])
except vmrunner.NotFound as error:
    print(error)
sandbox.close()
"""


def test_programs_and_people_have_terminals(shared: tuple[Home, str]) -> None:
    home, sandbox = shared
    done = subprocess.run(
        [sys.executable, "-c", TERMINALS, sandbox],
        env=home.env, cwd=home.root / "cwd", capture_output=True, text=True, check=False,
    )  # fmt: skip
    shown = [str(b"33 101\r\nvt100\r\n"), "130", "5", "terminal: nosuch: not found"]
    assert done.stdout.splitlines() == shown, done.stderr

    def left() -> set[bytes]:
        script = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'"
        return {b"yes", b"104", b"105"} & set(run(shared, "sh", "-c", script).split(b"\n"))

    wait_until(lambda: not left(), seconds=60, what="the end of what was hung up")
    with Terminal(home, "sandbox", "shell", sandbox) as shell:
        shell.type("tty; exit 6\n")
        shell.wait_for(rb"/dev/pts/\d+\r\n")
        assert shell.end() == 6


SERVED = """
import sys, time, urllib.request, vmrunner

sandbox = vmrunner.Sandbox.connect(sys.argv[1])
service = sandbox.popen(["python3", "-m", "http.server", "--bind", "127.0.0.1", "8123"])
with sandbox.forward(8123) as port:
    for _ in range(120):
        try:
            print(urllib.request.urlopen(port.url).status)
            break
        except OSError:
            time.sleep(0.5)
sandbox.close()
"""


@pytest.fixture(scope="module")
def served(shared: tuple[Home, str]) -> Iterator[dict[str, str]]:
    """The environment of somebody who has the URL of a server over that home, and a token."""
    home, _ = shared
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    done = home.run("token", "create", "me", "--scope", "read,submit,enter")
    token = done.stdout.decode().strip()
    with (home.root / "serve.log").open("wb") as log:
        server = home.start("serve", "--listen", listen, stdout=log, stderr=log)
    try:
        place = {"VMRUNNER_SERVER": f"http://{listen}", "VMRUNNER_TOKEN": token}
        wait_until(lambda: home.run("ps", **place).returncode == 0, seconds=120, what="it to serve")
        yield place
    finally:
        server.terminate()
        server.wait(60)


def test_a_vm_is_entered_over_a_server(shared: tuple[Home, str], served: dict[str, str]) -> None:
    home, sandbox = shared
    for program, shown in (
        (TERMINALS, [str(b"33 101\r\nvt100\r\n"), "130", "5", "terminal: nosuch: not found"]),
        (SERVED, ["200"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, sandbox],
            env=home.env | served, cwd=home.root / "cwd", capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.stdout.splitlines() == shown, done.stderr
    evil = bytes(range(256)) * 4096
    done = subprocess.run(
        [VMRUNNER, "sandbox", "exec", "-i", sandbox, "--", "sh", "-c", "cat; exit 7"],
        env=home.env | served, input=evil, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout == evil) == (7, True), text(done.stderr)
    done = home.run("ssh", sandbox, "--", "sh", "-c", "id -u; cat /proc/1/comm", **served)
    assert (done.returncode, done.stdout) == (0, b"0\nsystemd\n"), text(done.stderr)
    request = urllib.request.Request(
        f"{served['VMRUNNER_SERVER']}/api/v1/sandboxes/{sandbox}/ports/8123/",
        headers={"Authorization": f"Bearer {served['VMRUNNER_TOKEN']}"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Security-Policy"].startswith("sandbox ")


def test_a_held_build_is_entered_over_a_server(
    shared: tuple[Home, str], served: dict[str, str]
) -> None:
    home, _ = shared
    done = home.run(
        "run", "--network", "open", "--keep-on-failure", "10m", "--",
        "sh", "-c", "echo x >f; false",
        **served,
    )  # fmt: skip
    assert done.returncode == 1, text(done.stderr)
    (build,) = [row["id"] for row in home.builds() if row["state"] == "held"]
    done = home.run("ssh", "--container", build, "--", "cat", "f", **served)
    assert (done.returncode, done.stdout) == (0, b"x\n"), text(done.stderr)
    service = home.start(
        "ssh", "--container", build, "--",
        "python3", "-m", "http.server", "--bind", "127.0.0.1", "8123",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **served,
    )  # fmt: skip
    request = urllib.request.Request(
        f"{served['VMRUNNER_SERVER']}/api/v1/builds/{build}/ports/8123/f",
        headers={"Authorization": f"Bearer {served['VMRUNNER_TOKEN']}"},
    )

    def read() -> bytes:
        with contextlib.suppress(OSError), urllib.request.urlopen(request) as answer:
            content: bytes = answer.read()
            return content
        return b""

    assert wait_until(read, seconds=120, what="the service") == b"x\n"
    service.kill()
    service.wait()
    assert home.run("cancel", build, **served).returncode == 0


def test_the_examples_run(shared: tuple[Home, str]) -> None:
    home, _ = shared
    outputs: dict[str, str] = {}

    def example(name: str) -> None:
        done = subprocess.run(
            [sys.executable, EXAMPLES / f"{name}.py"],
            env=home.env, cwd=home.root / "cwd", capture_output=True, text=True, check=False,
        )  # fmt: skip
        outputs[name] = done.stdout + (done.stderr if done.returncode else "")

    for name in ("e2b", "modal", "daytona"):
        example(name)
    *lines, root = outputs["e2b"].splitlines()
    assert lines == ["hello world", "name,age", "Ada,36"]
    assert {"etc", "usr", "work"} < set(ast.literal_eval(root))
    assert re.fullmatch(r"hello\n(\d\d:\d\d:\d\d\n){10}exit code 0\n", outputs["modal"])
    assert outputs["daytona"] == "Hello World from code!\n"
