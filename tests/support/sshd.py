"""A private sshd on the loopback, and a proxy in front of it that can play dead."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vmrunner.model import Access, Address
from vmrunner.session.ssh import keys


class Sshd:
    """`address` and `access` are what a session would be given. `programs`: a directory whose
    programs are found before all others."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise RuntimeError("sshd is missing: apt-get install openssh-server")
        self.programs = directory / "bin"
        host, user = keys.generate(), keys.generate()
        self.user = getpass.getuser()
        self.access = Access(user_private=user.private, host_public=host.public)
        self.address = Address("127.0.0.1", free_port())
        for name, text, mode in (
            ("host_key", host.private, 0o600),
            ("authorized_keys", user.public + "\n", 0o600),
            ("config", self._config(directory), 0o644),
        ):
            (directory / name).write_text(text)
            (directory / name).chmod(mode)
        if self.user == "root":
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.programs.mkdir()
        self._log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(directory / "config")],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def _config(self, directory: Path) -> str:
        return f"""
ListenAddress {self.address.host}:{self.address.port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile {directory}/pid
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
# What the user's own shell reads at each start is none of ours, and costs what it likes.
SetEnv HOME={directory} "PATH={self.programs}:{os.environ["PATH"]}"
MaxSessions 64
MaxStartups 100:30:200
"""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, those who serve its connections stand still: TCP answers, SSH does not."""
        found: set[int] = set()
        while new := _descendants(self.process.pid) - found:  # one may just be starting another
            _signal(new, signal.SIGSTOP)
            found |= new
        assert found, "nobody is connected"
        try:
            yield
        finally:
            _signal(found, signal.SIGCONT)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self._log.close()


class InetdSshd:
    """An sshd for each stream, on pipes: nothing listens."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise RuntimeError("sshd is missing: apt-get install openssh-server")
        host, user = keys.generate(), keys.generate()
        self.user = getpass.getuser()
        self.access = Access(user_private=user.private, host_public=host.public)
        config = (
            f"HostKey {directory}/host_key\nAuthorizedKeysFile {directory}/authorized_keys\n"
            "StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv HOME={directory}\n"
        )
        for name, text in (
            ("host_key", host.private),
            ("authorized_keys", user.public + "\n"),
            ("config", config),
        ):
            (directory / name).write_text(text)
            (directory / name).chmod(0o600)
        if self.user == "root":
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._command = [program, "-i", "-e", "-f", str(directory / "config")]

    def start(self, *_: object) -> subprocess.Popen[bytes]:
        """Start one, whatever was to be started."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe)


@contextmanager
def running(directory: Path) -> Iterator[Sshd]:
    sshd = Sshd(directory)
    try:
        wait_for(lambda: answers(sshd.address))
        yield sshd
    finally:
        sshd.stop()


def _descendants(pid: int) -> set[int]:
    """The kernel's own list of children would do, if it did not skip some while others end."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    while new := {p for p, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def answers(address: Address) -> bool:
    try:
        with socket.create_connection(address, 1) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll until the condition holds. A look that takes long, as one into a container does, is not
    taken often: what is waited for needs the time."""
    until = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < until, "it did not come true"
        time.sleep(min(0.5, max(0.02, 2 * (now - began))))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Proxy:
    """Forwards connections to an address. While `stalled` it reads and forwards nothing, as a
    network that drops every packet; `cut` resets what is open."""

    def __init__(self, to: Address, port: int = 0) -> None:
        self._to = to
        self.stalled = threading.Event()
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = Address(*self._listener.getsockname()[:2])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self._to)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pump, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                while self.stalled.is_set():
                    time.sleep(0.02)
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def cut(self) -> None:
        for sock in self._open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def refuse(self) -> None:
        """No new connections, and an end to the old."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def close(self) -> None:
        self.stalled.clear()
        self.refuse()
        for thread in self._threads:
            thread.join(5)
        for sock in self._open:
            sock.close()
