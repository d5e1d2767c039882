"""A virtual machine's insides without the machine: the supervisor's real program over a dockerd
that runs the driver as a plain process, in a directory."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.support.programs import INTERPRETER_LINE
from tests.support.registry import refusal
from tests.support.sshd import wait_for
from vmrunner.providers.qemu.syscalls import adopt_orphans
from vmrunner.session.protocol import EndFrame, EventFrame, FrameDecoder, LogFrame

ROOT = Path(__file__).parents[2]

SUPERVISOR = """{line}import os, sys
sys.path.insert(0, {root!r})
os.environ["PATH"] = {programs!r} + ":" + os.environ["PATH"]
from vmrunner.guest import artifact_globs, build, docker, follow, pull, supervisor, syscalls
from vmrunner.guest.state import Place
if os.geteuid():  # only root may enter a container's namespaces; this one's are our own
    syscalls._libc.setns = lambda descriptor, kind: 0
docker.SOCKET = {socket!r}
build.TERM_GRACE = 1.0
supervisor.STARTS = {starts}
pull.RETRY_PAUSE = 0.0
follow.DEAD_AFTER = 3.0
sys.exit(supervisor.main(sys.argv[1:], Place({run!r}, {lib!r}), {work!r}))
"""

SYSTEMD_RUN = """#!/bin/sh
setsid {supervisor} run </dev/null >/dev/null 2>>{errors} &
echo $! >>{pids}
"""

MOUNT = """#!/bin/sh
[ "$2" != bind,ro ] || { rmdir "$4" && ln -s "$3" "$4"; }
"""


class Guest:
    """`supervisor` is the path of its program. Container images are names that it "has"."""

    def __init__(
        self, directory: Path, images: Sequence[str] = ("debian:trixie",), *, starts: int = 1000
    ) -> None:
        self.directory = directory
        self.work = directory / "work"
        self.run = directory / "run"
        self.supervisor = str(directory / "supervisor")
        self._pids = directory / "pids"
        self._errors = directory / "errors"
        self.resident: subprocess.Popen[bytes] | None = None
        self.docker = Dockerd(directory / "docker.sock", images)
        programs = directory / "bin"
        programs.mkdir()
        self._program(programs / "mount", MOUNT)
        for name in ("nft", "systemctl"):
            self._program(programs / name, "#!/bin/sh\ncat >/dev/null </dev/null\n")
        self._program(
            programs / "systemd-run",
            SYSTEMD_RUN.format(supervisor=self.supervisor, errors=self._errors, pids=self._pids),
        )
        self._program(
            Path(self.supervisor),
            SUPERVISOR.format(
                line=INTERPRETER_LINE,
                root=str(ROOT),
                programs=str(programs),
                socket=str(directory / "docker.sock"),
                starts=starts,
                run=str(self.run),
                lib=str(directory / "lib"),
                work=str(self.work),
            ),
        )

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def set(self, line: str) -> None:
        """A limit of the supervisor's own, from its next command on."""
        text = Path(self.supervisor).read_text()
        self._program(Path(self.supervisor), text.replace("sys.exit(", f"{line}\nsys.exit(", 1))

    def call(self, *words: str, epoch: int = 1, stdin: bytes = b"") -> subprocess.CompletedProcess:
        argv = [self.supervisor, words[0], "--epoch", str(epoch), *words[1:]]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)

    def kill_run(self) -> None:
        """`supervisor run` dies as if the kernel had killed it."""
        for pid in self._pids.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self._pids.write_text("")

    def restart_run(self) -> None:
        """What systemd does then."""
        subprocess.run([str(self.directory / "bin" / "systemd-run")], check=True)

    def start_resident(self) -> None:
        """The process that answers on a socket, as systemd starts it."""
        with self._errors.open("ab") as errors:
            self.resident = subprocess.Popen([self.supervisor, "resident"], stderr=errors)
        wait_for((self.run / "socket").exists)

    def kill_resident(self) -> None:
        """It dies as if the kernel had killed it; its children live on."""
        if self.resident is not None:
            self.resident.kill()
            self.resident.wait()
            (self.run / "socket").unlink(missing_ok=True)
            self.resident = None

    @property
    def errors(self) -> str:
        return self._errors.read_text() if self._errors.exists() else ""

    def close(self) -> None:
        """Ends what runs, and prints what the VM knew, for the report of a test that failed."""
        events = self.run / "spool" / "events"
        print(f"guest's events: {events.read_text() if events.exists() else None}")
        print(f"guest's errors: {self.errors}")
        self.kill_resident()
        if self._pids.exists():
            pids = self._pids.read_text().split()
            print(f"guest's runs: { {pid: Path(f'/proc/{pid}').exists() for pid in pids} }")
            self.kill_run()
        self.docker.close()


@contextmanager
def booted(directory: Path, **options: Any) -> Iterator[Guest]:
    directory.mkdir(parents=True, exist_ok=True)
    guest = Guest(directory, **options)
    try:
        yield guest
    finally:
        guest.close()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with booted(tmp_path / "vm") as guest:
        yield guest


def job(*scripts: str, **changes: Any) -> bytes:
    """An order as a session sends it."""
    steps = [{"script": script, "env": {}, "timeout": None} for script in scripts]
    order = {
        "build": "b-1",
        "attempt": "b-1/1",
        "container": "debian:trixie",
        "runtime": "runc",
        "docker": False,
        "privileged": False,
        "network": "none",
        "timeout": 60.0,
        "log_bytes": 1 << 20,
        "env": {},
        "secrets": {},
        "steps": steps,
    }
    return json.dumps({**order, **changes}).encode()


class Followed:
    """All that came out of one `start` or `follow`."""

    def __init__(self, output: bytes, *, offset: int = 0, steps: int = 9) -> None:
        frames = FrameDecoder(offset=offset, steps=steps, log_bytes=256 << 20)
        self.frames = list(frames.feed(output))
        self.log = b"".join(frame.data for frame in self.frames if isinstance(frame, LogFrame))
        self.events = [frame for frame in self.frames if isinstance(frame, EventFrame)]
        self.ended = next((frame for frame in self.frames if isinstance(frame, EndFrame)), None)

    def at(self, kind: str) -> list[int]:
        return [event.offset for event in self.events if event.kind == kind]


def start(guest: Guest, order: bytes, epoch: int = 1) -> Followed:
    done = guest.call("start", "0", "0", stdin=order, epoch=epoch)
    assert done.returncode == 0, (done.stderr, guest.errors)
    return Followed(done.stdout)


class Dockerd:
    """The calls that the supervisor makes, for one container."""

    def __init__(self, path: Path, images: Sequence[str]) -> None:
        self.images = list(images)
        self.runtimes = ["runc"]
        self.exec_error = ""  # the call that fails: exec or start
        self.execs: list[Mapping[str, Any]] = []  # made; only TERM to all is carried out
        self.created: list[Mapping[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.start_error: tuple[int, str] | None = None
        self.oom_killed = False
        self.wait_bodies: list[bytes] = []  # what the next waits are told instead
        self.dies_at_inspect = False  # after the head of its answer
        self.slow_kills = 0  # how often it still says that a kill had no effect
        self.mute: list[str] = []  # calls that it does once, and nobody hears of it
        self.deaf: list[str] = []  # calls that it does not even do, once
        self.registry: list[str] = []  # images that it can pull
        self.pulls: list[dict[str, str]] = []  # what it was asked to pull
        self.accounts: dict[str, dict[str, str]] = {}  # images whose registry wants one of these
        self.logins: list[str] = []  # what it was told for registries
        self.pull_errors: list[tuple[int, str]] = []  # how the next pulls end; 0: in mid-answer
        self.may_pull = threading.Event()  # until then a pull goes on and on
        self.may_pull.set()
        self.hung_up = threading.Event()  # somebody did while it pulled
        self._closed = threading.Event()
        docker = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                method, path, _ = self.rfile.readline().decode().split()
                size = 0
                while (line := self.rfile.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                    if name.lower() == b"x-registry-auth":
                        docker.logins.append(value.decode().strip())
                body = self.rfile.read(size)
                with suppress(BrokenPipeError):
                    if path.startswith("/images/create?"):
                        docker.pull(dict(parse_qsl(path.partition("?")[2])), self.wfile.write)
                        return
                    if path.endswith("/wait") and docker.created:  # its head comes at once
                        self.wfile.write(b"HTTP/1.0 200 X\r\n\r\n")
                        if docker.wait_bodies:
                            self.wfile.write(docker.wait_bodies.pop(0))
                            return
                        self.wfile.write(json.dumps(docker.answer(method, path, body)[1]).encode())
                        return
                    status, answer = docker.answer(method, path, body)
                    head = f"HTTP/1.0 {status} X\r\n\r\n".encode()
                    self.wfile.write(head + (json.dumps(answer).encode() if answer else b""))

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        name = path.partition("?")[0]
        call = name.rpartition("/")[2]
        if call in self.deaf:
            self.deaf.remove(call)
            self._closed.wait()
            return 500, {"message": "closed"}
        try:
            return self._answer(method, name, body)
        finally:
            if call in self.mute:
                self.mute.remove(call)
                self._closed.wait()

    def _answer(self, method: str, name: str, body: bytes) -> tuple[int, Any]:
        if name == "/images/json":
            return 200, [{"RepoTags": [image]} for image in self.images]
        if name == "/containers/create":
            return self._create(json.loads(body))
        if name.startswith("/exec/"):
            return self._exec()
        if method == "DELETE":
            return self._remove()
        if not self.created:
            return 404, {"message": "No such container: vmrunner-build"}
        if name.endswith("/start"):
            return self._start()
        if name.endswith("/exec"):
            self.execs.append(json.loads(body))
            if self.exec_error == "exec":
                return 500, {"message": "cannot fork"}
            return 201, {"Id": "e"}
        if name.endswith("/json"):
            return self._inspect()
        if name.endswith("/kill"):
            return self._kill()
        assert name.endswith("/wait"), (method, name)
        code = self.process.wait() if self.process else 0
        return 200, {"StatusCode": 128 - code if code < 0 else code}

    def _inspect(self) -> tuple[int, Any]:
        if self.dies_at_inspect:
            return 200, None
        pid = self.process.pid if self.process else 0
        return 200, {"Id": "c0ffee", "State": {"Pid": pid, "OOMKilled": self.oom_killed}}

    def _remove(self) -> tuple[int, Any]:
        self._kill()
        if self.process is not None:
            self.process.wait()
        self.created.clear()
        return 204, None

    def _create(self, request: Mapping[str, Any]) -> tuple[int, Any]:
        if self.created:
            return 409, {"message": "Conflict. The container name is already in use"}
        if _full(request["Image"]) not in self.images:
            return 404, {"message": f"No such image: {request['Image']}"}
        runtime = request["HostConfig"]["Runtime"]
        if runtime not in self.runtimes:
            return 400, {"message": f"unknown or invalid runtime name: {runtime}"}
        self.created.append(request)
        return 201, {"Id": "c0ffee"}

    def pull(self, request: dict[str, str], write: Callable[[bytes], object]) -> None:
        """Docker's stream: a status at once, progress, and an error where there is one."""
        self.pulls.append(request)
        image = request["fromImage"] + (f":{request['tag']}" if "tag" in request else "")
        status, error = self.pull_errors.pop(0) if self.pull_errors else (200, "")
        if not error and image in self.accounts:
            status, error = refusal(image, self.accounts[image], self.logins)
        if not error and image not in self.registry:
            status, error = 404, f"manifest for {image} not found:\nmanifest unknown"
        if status >= 400:
            write(f"HTTP/1.0 {status} X\r\n\r\n".encode() + _line({"message": error}))
            return
        write(b"HTTP/1.0 200 X\r\n\r\n" + _line({"status": f"Pulling from {image}"}))
        try:
            while not self.may_pull.wait(0.02):
                write(_line({"status": "Downloading", "progress": "[==>   ]"}))
        except ConnectionError:
            self.hung_up.set()
            return
        if error:
            write(_line({"errorDetail": {"message": error}, "error": error}) if status else b"")
            return
        self.images.append(image)
        write(_line({"status": f"Status: Downloaded newer image for {image}"}))

    def _start(self) -> tuple[int, Any]:
        if self.start_error:
            return self.start_error[0], {"message": self.start_error[1]}
        request = self.created[-1]
        work, box = (bind.split(":")[0] for bind in request["HostConfig"]["Binds"][:2])
        self.process = subprocess.Popen(
            ["/bin/sh", f"{box}/driver.sh"],
            cwd=work,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # As pid 1 does: a command that a step's shell forked off is the driver's child then.
            preexec_fn=adopt_orphans,
        )
        return 204, None

    def _kill(self) -> tuple[int, Any]:
        if self.process is None or self.process.poll() is not None:
            return 409, {"message": "is not running"}
        if self.slow_kills:
            self.slow_kills -= 1
            return 500, {"message": "tried to kill container, but did not receive an exit event"}
        os.killpg(self.process.pid, signal.SIGKILL)
        return 204, None

    def _exec(self) -> tuple[int, Any]:
        assert self.process is not None
        if self.exec_error:
            return 500, {"message": "cannot fork"}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                pid = int(path.name)
                if os.getpgid(pid) == self.process.pid != pid:
                    os.kill(pid, signal.SIGTERM)
        return 200, None

    def close(self) -> None:
        self._closed.set()
        self.may_pull.set()
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._server.shutdown()
        self._server.server_close()


def _line(word: Mapping[str, Any]) -> bytes:
    return json.dumps(word).encode() + b"\r\n"


def _full(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"
