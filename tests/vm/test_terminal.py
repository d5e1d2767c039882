"""Two builds at terminals. Ctrl-C is typed there; meanwhile one is entered by `vmrunner ssh`, and
has a Docker of its own and a privileged container. Both boot at once: a boot costs a minute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

import pytest

from tests.vm.home import Home, text, wait_until
from tests.vm.terminal import Terminal

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

# Docker's API by hand: the default container has no docker program.
SIBLING = dedent(
    """
    import http.client, json, socket

    class Docker(http.client.HTTPConnection):
        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect("/var/run/docker.sock")

    def call(method, path, body=None):
        connection = Docker("docker", timeout=60)
        head = {"Content-Type": "application/json"}
        connection.request(method, path, body and json.dumps(body), head)
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status < 300, (answer.status, data)
        return data

    print("names", json.loads(call("GET", "/containers/json"))[0]["Names"])
    create = {
        "Image": "debian:trixie",
        "Tty": True,
        "Cmd": ["sh", "-c", "echo from $(hostname)"],
        "Hostname": "sibling",
        "HostConfig": {"NetworkMode": "none"},
    }
    id = json.loads(call("POST", "/containers/create", create))["Id"]
    call("POST", f"/containers/{id}/start")
    print("exit", json.loads(call("POST", f"/containers/{id}/wait"))["StatusCode"])
    print("says", call("GET", f"/containers/{id}/logs?stdout=1").decode().strip())
    """
)
PRIVILEGED = dedent(
    r"""
    echo "caps $(sed -n 's/^CapEff:\t//p' /proc/self/status)"
    echo "nnp $(sed -n 's/^NoNewPrivs:\t//p' /proc/self/status)"
    mount -t tmpfs none /mnt && echo mounted
    echo "interfaces $(ls /sys/class/net)"
    """
)
STEPS = [["python3", "-c", SIBLING], PRIVILEGED, "echo 'in it'; sleep 600"]
DEAF = "trap '' TERM; echo 'in it'; while :; do sleep 1; done"


@dataclass
class Two:
    home: Home
    inside: Terminal
    inside_id: str
    shown: list[str]  # lines of `inside`, live ones too, up to its last step
    deaf: Terminal
    deaf_id: str


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    home = Home.make(tmp_path_factory.mktemp("terminal") / "home")
    config = home.root / "config/vmrunner/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[limits]\nprivileged = true\n")
    job = {"steps": STEPS, "privileged": True, "network": "none"}
    (home.root / "cwd/vmrunner.yml").write_text(json.dumps({"version": 1, "jobs": {"job": job}}))
    words = ("run", "--docker", "-f", "vmrunner.yml", "job")
    try:
        with (
            Terminal(home, *words) as inside,
            Terminal(home, "run", "--network", "none", "--", "sh", "-c", DEAF) as deaf,
        ):
            ids = started(inside), started(deaf)
            last = inside.wait_for(rb"in it\r\n", seconds=700)
            deaf.wait_for(rb"in it\r\n", seconds=700)
            lines = text(last.string[: last.start()]).replace("\r\x1b[K", "\n").splitlines()
            yield Two(home, inside, ids[0], lines, deaf, ids[1])
    finally:
        home.run("reap", timeout=300)
        home.assert_nothing_left()


def started(terminal: Terminal) -> str:
    return text(terminal.wait_for(rb"vmrunner: build (b-\w+)\r\n")[1])


def test_a_build_has_a_docker_and_privileges_when_it_asked(two: Two) -> None:
    lines = two.shown
    assert "names ['/vmrunner-build']" in lines
    assert "exit 0" in lines
    assert "says from sibling" in lines
    caps = next(line.split()[1] for line in lines if line.startswith("caps "))
    assert int(caps, 16).bit_count() > 35, "all there are"
    assert "nnp 0" in lines
    assert "mounted" in lines
    assert "interfaces lo" in lines, "and yet no network"
    shown = two.home.run("show", two.inside_id, timeout=100).stdout
    assert b"start      resumed, in a fresh container\n" in shown


def test_words_after_the_dashes_reach_the_vm_as_given(two: Two) -> None:
    def ssh(*words: str) -> tuple[int, bytes]:
        done = two.home.run("ssh", two.inside_id, "--", *words, timeout=300)
        return done.returncode, done.stdout

    words = ["a  b", "$HOME;id", "", "it's", "*", '"', "a\nb", "--", "-o"]
    assert ssh("printf", r"<%s>\n", *words) == (0, "".join(f"<{w}>\n" for w in words).encode())
    assert ssh("sh", "-c", "echo one; exit 7") == (7, b"one\n")
    assert ssh("echo one; exit 7") == (127, b""), "one word is one program, as for run"
    assert ssh("docker", "exec", "vmrunner-build", "pwd") == (0, b"/work\n")


def test_a_shell_in_the_vm_is_a_terminal_there(two: Two) -> None:
    with Terminal(two.home, "ssh", two.inside_id) as shell:
        shell.wait_for(rb"# ")
        shell.type("tty; id -un\n")
        shell.wait_for(rb"/dev/pts/\d+\r\nroot\r\n")
        # The shell itself loses a Ctrl-C that comes while it starts a command.
        shell.type("sh -c 'echo begun-$((40+2)); exec sleep 600'\n")
        shell.wait_for(rb"begun-42\r\n")
        assert list((two.home.root / "tmp").iterdir()) == [], "a kill would leave no key"
        shell.type("\x03")  # ends the sleep there, and nothing here
        shell.wait_for(rb"# ")
        shell.type("echo ended-$?\n")
        shell.wait_for(rb"ended-130\r\n")
        shell.type("exit 5\n")
        assert shell.end() == 5
    assert two.inside.process.poll() is None


def test_ctrl_c_cancels_and_a_second_one_leaves_at_once(two: Two) -> None:
    """The engine of both ends with the first build's process: the other one's takes over."""
    two.inside.type("\x03")
    two.inside.wait_for(f"cancelling {two.inside_id} and destroying its VM".encode())
    assert two.inside.end() == 130
    last = text(two.inside.seen).splitlines()[-1].removeprefix("\x1b[K")
    assert last == f"vmrunner: result=cancelled reason=user exit_code= build={two.inside_id}"
    assert state_of(two.home, two.inside_id) == "gone"
    assert state_of(two.home, two.deaf_id) == "busy"

    two.deaf.type("\x03")
    two.deaf.wait_for(f"cancelling {two.deaf_id}".encode())
    two.deaf.type("\x03")
    two.deaf.wait_for(
        f"leaving {two.deaf_id}: its VM ends with the next `vmrunner reap`, at the latest at "
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\r\n".encode()
    )
    assert two.deaf.end(seconds=5) == 130
    assert two.home.processes(), "its VM runs on"

    (vm,) = (row for row in two.home.instances() if row["build"] == two.deaf_id)
    destroyed = two.home.run("vm", "destroy", vm["id"], timeout=300)
    assert (destroyed.returncode, text(destroyed.stdout)) == (0, f"{vm['id']}\n")
    assert state_of(two.home, two.deaf_id) == "gone"
    build = wait_until(
        lambda: next(
            (b for b in two.home.builds() if b["id"] == two.deaf_id and b["state"] == "finished"),
            None,
        ),
        seconds=60,
        what="the background engine to write its end",
    )
    assert (build["result"], build["reason"]) == ("cancelled", "user")


def state_of(home: Home, build: str) -> str:
    (row,) = (row for row in home.instances() if row["build"] == build)
    return str(row["state"])
