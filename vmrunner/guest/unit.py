"""Commands of a unit's container: `supervisor lay|beside|ready|recipe`; all others are those of a
supervisor in a VM.

lay       see unit_lay.py
beside    process 1 of our container: reaps, starts the resident supervisor and starts it again,
          hears when the build's container is gone, and ends us at the unit's end
ready     succeeds once the supervisor answers
recipe    prints the hash of this image's recipe
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from . import beside, identity
from .beside import GONE, IDENTITY, UnitPlace
from .command_io import Output
from .daemon import LAUNCH, Resident
from .supervisor import WORK, obey, run_build
from .unit_lay import lay

TICK = 1.0  # seconds between looks at the deadline
RESTART_PAUSE = 0.5  # seconds before a supervisor that died is started again
COME_WITHIN = 240.0  # seconds from a build's order for a driver that was slow to start
TERMINATED = 128 + signal.SIGTERM
RECIPE = "/usr/lib/vmrunner/recipe"
RESIDENT = "resident"  # the file with its pid


def main(argv: list[str], place: UnitPlace | None = None, work: str = WORK) -> int:
    """`place` and `work` are the unit's unless a test names others."""
    place = place or UnitPlace()
    command = argv[0] if argv else ""
    if command == "lay":
        return lay(place.box)
    if command == "beside":
        return Init(place, work).run()
    if command == "ready":
        return ready(place)
    if command == "recipe":
        with open(RECIPE, "rb") as file:
            return os.write(1, file.read()) and 0
    if command == "run":
        return run_build(place, work=work)
    return obey(argv, place, work, Output(1), lambda: _ask_resident(place))


def ready(place: UnitPlace) -> int:
    """Return 0 if the supervisor answers on its socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(place.socket)
        except OSError:
            return 1
    return 0


class Init:
    """Process 1 of our container, wherever a test has it."""

    def __init__(self, place: UnitPlace, work: str, identity_files: str = IDENTITY) -> None:
        self._place = place
        self._work = work
        place.make()
        os.chmod(work, 0o755)  # as in a VM: the volume is everybody's at first
        self._take_deadline(f"{identity_files}/deadline")
        self._gone = self._open_gone()
        # Open from here on: of a FIFO that is opened after its writer's end none hears that end.
        self._alive: int | None = place.fifo("alive", os.O_RDONLY)
        self._signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._resident = 0
        self._start_at = 0.0
        self._due_at: float | None = None  # when the driver must have come; None: no build yet

    def _take_deadline(self, path: str) -> None:
        """Take the unit's end, which a former process of ours may know to come earlier."""
        with open(path, encoding="ascii") as file:
            at = float(file.read())
        identity.lower(self._place, at, max(0.0, at - time.time()))

    def _open_gone(self) -> int:
        path = f"{self._place.run}/{GONE}"
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Return the exit code, at the unit's end."""
        signal.set_wakeup_fd(self._signals[1])
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        while True:
            if not self._resident and time.monotonic() >= self._start_at:
                self._resident = self._start()
            if signal.SIGTERM in self._wait():
                return TERMINATED
            self._reap()
            self._look_for_driver()
            if identity.overdue(self._place):
                beside.end(self._place)
                return 0

    def _wait(self) -> bytes:
        """Wait for news; return the signals that came."""
        poll = select.poll()
        poll.register(self._signals[0], select.POLLIN)
        if self._alive is not None:
            poll.register(self._alive, select.POLLIN)
        ready = dict(poll.poll((TICK if self._resident else RESTART_PAUSE) * 1000))
        if self._alive is not None and self._alive in ready:
            self._listen(self._alive)
        with suppress(BlockingIOError):
            return os.read(self._signals[0], 4096)
        return b""

    def _listen(self, alive: int) -> None:
        """Hear the end of its writers; what the build may write there means nothing."""
        with suppress(BlockingIOError):
            if os.read(alive, 4096):
                return
            os.close(alive)
            self._alive = None
            os.write(self._gone, b"\n")  # stays there, for whoever asks, whenever that is

    def _look_for_driver(self) -> None:
        """Take a driver that never opened `alive` for dead: nobody hears an end without a begin."""
        if self._due_at is None and self._place.job():
            self._due_at = time.monotonic() + COME_WITHIN
        if self._due_at is not None and time.monotonic() >= self._due_at:
            self._due_at = math.inf
            with suppress(OSError):  # the build has put something else there: so it has begun
                os.close(self._place.fifo("alive", os.O_WRONLY))  # an end, unless there is another

    def _start(self) -> int:
        pid = os.fork()
        if pid:
            self._place.write(RESIDENT, str(pid))
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            place, work = self._place, self._work
            code = Resident(place, work, obey, run_build, switch_off=_leave_to_init).run()
        except BaseException as error:  # noqa: BLE001 - a fork must not return into its parent
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if pid == self._resident:
                    self._resident, self._start_at = 0, time.monotonic() + RESTART_PAUSE


def _ask_resident(place: UnitPlace) -> None:
    """Have the resident start the build's supervisor."""
    os.kill(int(place.read(RESIDENT)), LAUNCH)


def _leave_to_init() -> None:
    """Nothing: process 1 minds the unit's end, and all of ours ends with it."""
