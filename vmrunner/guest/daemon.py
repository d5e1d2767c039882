"""`supervisor resident`: the process that is there when a build comes, so that none has to start.

It answers on a Unix socket that root alone may use; sshd connects to it. Each command runs in a
fork, where a new Python costs seconds under emulation; so does a fork cost tens of milliseconds,
and two are made ahead (preforked.py). It starts the build's supervisor, `run`, and starts it again
when it dies; it holds this VM's own end.

On a host that gives this VM its identity (identity.py) it waits for that first, then starts sshd.
A container is made meanwhile, where the host told its shape.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from . import artifact_globs as artifact_globs  # loaded here, once, for all forks
from . import caches as caches
from . import command as command
from . import command_follower as command_follower
from . import direct_start as direct_start
from . import exit_events as exit_events
from . import identity, syscalls
from . import port_forward as port_forward
from . import prestart as prestarting
from . import sandbox_commands as sandbox_commands
from . import sandbox_files as sandbox_files
from . import usage as usage
from . import userns as userns
from .preforked import Spare
from .socket_answers import Obey, answer
from .state import ContainerError, EventLog, Place
from .warm_up import rehearse

RESTART_PAUSE = 0.5  # seconds before a child that died is started again
TICK = 5.0  # seconds between looks at the deadline
PORT_PAUSE = 0.05  # seconds between looks for the port and for sshd
SSHD = "/usr/sbin/sshd"
SSH_PORT = 22
SETTLED = "settled"
PRESTARTS = 3
SPARES = 2  # the first command of a build, and its supervisor
QUIET = 1.0  # seconds without news before spares are made: they would delay a build that starts

LAUNCH = signal.SIGUSR1  # from a command: start the build's supervisor
_ANSWER, _BUILD = b"A", b"B"  # what a spare may be told to do


class Resident:
    """The loop over socket, children, identity and deadline."""

    def __init__(
        self,
        place: Place,
        work: str,
        obey: Obey,
        run_build: Callable[..., int],
        *,
        switch_off: Callable[[], None] = syscalls.power_off,
    ) -> None:
        """`obey` and `run_build` are the supervisor's; `switch_off` ends this machine."""
        self._switch_off = switch_off
        self._place = place
        self._work = work
        self._obey = obey
        self._run_supervisor = run_build
        place.make()
        self._signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._listener = self._listen()
        self._kept: dict[int, Callable[[], int]] = {}  # a child's pid → how it is started again
        self._again: list[tuple[float, Callable[[], int]]] = []  # and when
        self._spares: list[Spare] = []
        self._building = False
        self._port: int | None = None
        self._message = identity.Message()
        expected, identified = identity.expected(), os.path.exists(f"{place.run}/identified")
        self._unidentified = expected and not identified
        self._unacknowledged = (
            expected and identified and not os.path.exists(f"{place.run}/answered")
        )

    def _listen(self) -> socket.socket:
        path = self._place.socket
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def run(self) -> int:
        gc.freeze()  # a collection in a fork would copy every page of ours
        signal.set_wakeup_fd(self._signals[1])
        for number in (signal.SIGCHLD, LAUNCH):
            signal.signal(number, lambda *_: None)
        if identity.expected():
            if shape := identity.seed():
                with open(self._place.prestarting, "a"):  # a build that comes first says so there
                    pass
                self._fork(lambda: self._prestart(shape))
            if not self._unidentified and not _listens(SSH_PORT):  # a former one's lives on
                self._keep(self._start_sshd)
        self._go_on()
        while True:
            self._step()

    def _go_on(self) -> None:
        """Have the build's supervisor, where there is a build that did not end."""
        if self._place.job() and EventLog(self._place.events).last("ended") is None:
            self._build()

    def _step(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._signals[0], select.POLLIN)
        if (self._unidentified or self._unacknowledged) and self._port is None:
            self._port = identity.open_port()
        if self._port is not None and self._unidentified:
            poll.register(self._port, select.POLLIN)
        ready = dict(poll.poll(self._patience() * 1000))
        if not ready and not self._awaits_port and len(self._spares) < SPARES:
            self._make_spare()
        if self._signals[0] in ready:
            self._heed(os.read(self._signals[0], 4096))
        if self._listener.fileno() in ready:
            self._accept()
        if self._port in ready:
            self._identify(ready[self._port])
        if self._unacknowledged:
            self._acknowledge()
        if identity.overdue(self._place):
            self._switch_off()
        now = time.monotonic()
        due = [start for at, start in self._again if at <= now]
        self._again = [(at, start) for at, start in self._again if at > now]
        for start in due:
            self._keep(start)

    @property
    def _awaits_port(self) -> bool:
        """True while there is something that no poll waits for."""
        return self._unacknowledged or (self._unidentified and self._port is None)

    def _patience(self) -> float:
        """Seconds until the next look."""
        if self._awaits_port:
            return PORT_PAUSE
        if self._again:
            return RESTART_PAUSE
        return TICK if len(self._spares) >= SPARES else QUIET

    # --- commands --------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            if not self._hand_over(_ANSWER, connection.fileno()):
                self._fork(lambda: self._answer(connection))

    def _answer(self, connection: socket.socket) -> int:
        """The commands of one connection, in a child."""
        parent = os.getppid()

        def launch() -> None:
            if os.getppid() != parent:  # without an answer the caller asks the next one
                raise RuntimeError("the resident that would start the build is gone")
            os.kill(parent, LAUNCH)

        return answer(connection, self._place, self._work, launch, self._obey)

    # --- children --------------------------------------------------------------------------

    def _fork(self, work: Callable[[], int]) -> int:
        """A child that does this and ends with the code that it returns."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, LAUNCH):
                signal.signal(number, signal.SIG_DFL)
            self._listener.close()
            for spare in self._spares:  # it ends when its parent has ended
                spare.close()
            code = work()
        except BaseException as error:  # noqa: BLE001 - a fork must not return into its parent
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)

    def _make_spare(self) -> None:
        spare = Spare()
        spare.pid = self._fork(lambda: self._obey_as_spare(spare))
        spare.mine()
        self._spares.append(spare)

    def _obey_as_spare(self, spare: Spare) -> int:
        rehearse(self._place, self._obey)
        word, descriptors = spare.wait()
        if word == _ANSWER:
            return self._answer(socket.socket(fileno=descriptors[0]))
        return self._run_build() if word == _BUILD else 0

    def _hand_over(self, word: bytes, *descriptors: int) -> int:
        """Have a process that waits do it; 0: there is none."""
        while self._spares:
            spare = self._spares.pop(0)
            with spare:
                if spare.give(word, descriptors):
                    return spare.pid
        return 0

    def _keep(self, start: Callable[[], int]) -> None:
        """Start a child that is started again when it fails."""
        self._kept[start()] = start

    def _heed(self, signals: bytes) -> None:
        if LAUNCH in signals:
            self._build()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._spares = [spare for spare in self._spares if spare.pid != pid]
            start = self._kept.pop(pid, None)
            if start is not None and status:
                self._again.append((time.monotonic() + RESTART_PAUSE, start))
            elif start is not None and start == self._start_build:
                self._building = False
            elif start is None and status and not self._building:
                self._go_on()  # it may have died while it opened the build (direct_start.py)

    def _build(self) -> None:
        if not self._building:
            self._building = True
            self._keep(self._start_build)

    def _start_build(self) -> int:
        return self._hand_over(_BUILD) or self._fork(self._run_build)

    def _run_build(self) -> int:
        os.setsid()
        return self._run_supervisor(self._place, work=self._work)

    # --- identity --------------------------------------------------------------------------

    def _identify(self, event: int) -> None:
        assert self._port is not None
        try:
            data = os.read(self._port, identity.MESSAGE_LIMIT)
        except BlockingIOError:
            data = b""
        if not data and event & select.POLLHUP:
            time.sleep(PORT_PAUSE)  # no reader yet, which no poll waits for
        found = self._message.feed(data)
        if found is None:
            return
        identity.assume(self._place, found)
        self._unidentified = False
        self._unacknowledged = True
        self._keep(self._start_sshd)
        self._fork(self._show_boot_id)

    def _show_boot_id(self) -> int:
        """Do ahead, for a container that waits, what else would delay its build."""
        waiting = json.loads(self._place.read(prestarting.READY) or "{}")
        if waiting and self._place.woke():
            identity.show_boot_id(self._place, int(waiting["pid"]))
        return 0

    def _start_sshd(self) -> int:
        os.makedirs("/run/sshd", 0o755, exist_ok=True)

        def work() -> int:
            os.setsid()
            with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
                file.write("0")
            os.execv(SSHD, [SSHD, "-D"])

        return self._fork(work)

    def _acknowledge(self) -> None:
        """Tell the host once sshd listens, and nothing ever again."""
        if self._port is not None and _listens(SSH_PORT):
            self._place.write("answered", "")  # first: a second one is not read
            os.write(self._port, identity.ACK)
            os.close(self._port)
            self._port = None
            self._unacknowledged = False

    # --- the container that waits ------------------------------------------------------------

    def _prestart(self, shape: dict[str, object]) -> int:
        for remaining in reversed(range(PRESTARTS)):
            try:
                prestarting.prestart(self._place, shape, self._work)
                break
            except (OSError, ContainerError) as error:
                self._report(f"no container waits: {error}")
                if not remaining:
                    return 0
        if not os.path.exists(f"{self._place.run}/identified"):
            # A template is frozen when all that its boot began has ended.
            subprocess.run(["systemctl", "is-system-running", "--wait"], check=False)
            self._report(SETTLED)
        return 0

    def _report(self, text: str) -> None:
        """Tell who watches the console."""
        with open("/dev/console", "w", encoding="utf-8") as console:
            console.write(f"\nvmrunner: {text}\n")


def _listens(port: int) -> bool:
    """True if a process listens on that TCP port."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in file)
