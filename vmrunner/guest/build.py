"""`supervisor run`: one container from birth to exit code. A systemd unit of its own, so that it
depends on no SSH connection, and one that may die and be started again at any moment.

It copies the log FIFO to the spool, answers the driver before and after each step, enforces the
timeouts, and in the end writes one event `ended` with reason and exit code.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import pull as pulling
from . import verdict
from .cgroup import Cgroup
from .state import ContainerError, EventLog, Spool, clock

if TYPE_CHECKING:
    from .caches import CacheWork
    from .exit_events import ExitEvents
    from .runtime import ContainerWord
    from .state import Place

READ = 1 << 20
TICK = 1.0  # seconds between looks at timeouts and the disk
TERM_GRACE = 10.0  # from TERM to KILL
DOCKER_RETRIES = 30  # seconds that a restarting dockerd is waited for
ADMIT_PAUSE = 0.2  # seconds
PARTING = 0.1  # seconds that a last word waits: what Docker does at the end would delay the log
DISK_LOW = 32 << 20  # bytes free on the work directory's disk that count as full


class GuestBuild:
    """The loop over the build's FIFOs and the word of who runs its container."""

    def __init__(self, place: Place, *, work: str) -> None:
        self._place = place
        self._work = work
        self._runtime = place.runtime
        self._job = place.job()
        self._events = EventLog(place.events)
        full = self._events.last("log_full") is not None
        self._spool = Spool(place.log, int(self._job["log_bytes"]), full=full)
        self._log = place.fifo("log")
        fcntl.fcntl(self._log, fcntl.F_SETPIPE_SZ, READ)
        self._control = place.fifo("control")
        self._answers = place.fifo("answers")
        self._heard = b""  # a control line that is not whole yet
        self._first = int(self._job.get("prestarted", 0))  # process of the container, if known
        self._cgroup = Cgroup(place, self._job.get("container_id", ""), self._first)
        self._caches = self._cache_work()
        self._disk_low = False
        self._why = ""  # why we end it ourselves
        self._kill_at = self._killed_at = 0.0
        self._began = clock()  # what the build's timeout counts from
        self._now: dict[str, Any] | None = None  # the event of the step that runs
        self._next = 0  # the step that runs or comes next
        self._oom_kills = 0  # before that step
        self._parting: tuple[float, str] | None = None  # when the driver hears a last answer
        self._exits: ExitEvents | None = None
        self._code: int | None = None
        for event in self._events.past:
            self._recall(event)

    def _recall(self, event: dict[str, Any]) -> None:
        """Update our place by one more event: ours just now, or an earlier process's."""
        pulled = self._events.last("pulling") is not None
        if event["kind"] == "pulling" or (event["kind"] == "container" and not pulled):
            self._began = event["clock"]
        elif event["kind"] == "step_started":
            self._now = event
        elif event["kind"] == "step_ended":
            self._now = None
            self._next = event["step"] + 1
            self._oom_kills = event["oom_kills"]

    def _cache_work(self) -> CacheWork | None:
        if not self._job.get("caches"):
            return None
        with suppress(ModuleNotFoundError):  # in a stock image, whose user-data has no room
            from .caches import CacheWork

            return CacheWork(self._place, self._job, self._events, tell=self._add, work=self._work)
        return None

    # --- start -----------------------------------------------------------------------------

    def run(self) -> None:
        """Start the container, or find it again; follow it to its end."""
        if self._events.last("ended"):
            return
        try:
            if not self._place.was_started() and not self._create():
                name = self._job["container"]
                self._end(self._why, None, f"container image {name} was being pulled")
                return
            self._place.erase("registry")
            if self._place.claim(self._job["attempt"]):
                self._start()
            else:
                self._answer("again")
            code = self._watch()
        except ContainerError as error:
            self._end(*verdict.of_error(self._place, self._job, self._events, error))
        else:
            self._end(*verdict.of_exit(self._place, self._job, self._events, code, self._why))

    def _create(self) -> bool:
        """Let Docker make the container, of an image that may have to be pulled first. Return False
        when the build had to end before. Nothing of it runs yet, so a process that comes after one
        that died here begins again."""
        if self._job.get("prestarted"):
            return True
        pull = None
        while True:
            try:
                self._runtime.create(self._job, self._place, self._work)
            except ContainerError as error:
                if self._job["network"] == "none" or not pulling.missing(error):
                    raise
            else:
                return True
            pull = pull or self._runtime.pull(self._job["container"], self._place.read("registry"))
            pull.check()
            if not self._pull(pull):
                return False

    def _pull(self, pull: pulling.Pull) -> bool:
        """Try to pull the image once. Return False when the build must end."""
        if self._events.last("pulling") is None:
            self._add("pulling")
        again = clock() + pulling.RETRY_PAUSE
        for _ in self._attend(None) if pull.tried else ():
            if self._must_end():
                return False
            if clock() >= again:
                break
        with suppress(ContainerError), pull.ask() as connection:  # `check` has its words
            for part in self._attend(connection):
                pull.feed(part)
                if not part and self._must_end():
                    return False
        return True

    def _start(self) -> None:
        if not self._job.get("prestarted"):
            self._runtime.start(self._place)
        self._add("container")

    def _add(self, kind: str, **data: str | int | float | bool | None) -> None:
        """An event here and now, at this offset of the log."""
        self._events.add(kind, self._spool.size, **data)
        self._recall(self._events.past[-1])

    # --- run -------------------------------------------------------------------------------

    def _watch(self) -> int | None:
        """The container's exit code; None when it cannot be killed. A dockerd that restarts
        meanwhile is waited for."""
        patience = DOCKER_RETRIES
        while True:
            try:
                return self._follow()
            except ContainerError as error:
                if error.status or not patience:
                    raise
            patience -= 1
            time.sleep(TICK)

    def _follow(self) -> int | None:
        began = clock()
        for _ in self._attend(None):  # what dockerd does to answer would delay the first step
            if not self._look(clock()):
                return None
            ends = self._parting or self._exits
            if (self._next and not ends) or clock() >= began + TICK:
                break
        if self._code is None and not self._await_end():
            return None
        self._settle(give_up=True)
        while self._copy(READ):
            pass
        return self._code

    def _await_end(self) -> bool:
        """Wait until Docker tells the exit code, or the kernel, which is faster. False: it cannot
        be killed."""
        with self._runtime.wait(self._place) as exit_wait:
            response = b""
            for part in self._attend(exit_wait):
                response += part
                if not part and not self._look(clock()):
                    return False
        if self._code is None:
            self._code = self._runtime.exit_code(response, self._job, self._events)
        return True

    def _attend(self, answer: ContainerWord | None) -> Iterator[bytes]:
        """Yield the parts of Docker's answer, and nothing when it is time to look at timeouts and
        wishes, until its end or the container's. The FIFOs are minded meanwhile."""
        poll = select.poll()
        poll.register(self._log, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        if answer is not None:
            answer.settimeout(None)
            poll.register(answer, select.POLLIN)
        looked = 0.0
        while self._code is None:
            if self._exits:
                poll.register(self._exits, select.POLLIN)
            ready = {fd for fd, _ in poll.poll((PARTING if self._parting else TICK) * 1000)}
            if self._control in ready:
                self._read_control()
            if self._log in ready:
                self._copy(READ)
            if answer is not None and answer.fileno() in ready:
                if not (part := self._runtime.received(answer)):
                    return
                yield part
            if self._exits and self._exits.fileno() in ready:
                self._code = self._exits.read()
            if self._part() or clock() - looked >= TICK or self._control in ready:
                looked = clock()
                yield b""

    def _copy(self, most: int) -> int:
        """Move up to `most` bytes from the FIFO to the spool; how many it was."""
        try:
            data = os.read(self._log, most)
        except BlockingIOError:
            return 0
        was_full = self._spool.full
        self._spool.write(data)
        if self._spool.full and not was_full:
            self._add("log_full")
        return len(data)

    def _read_control(self) -> None:
        """Take note of what the driver says, after all that was written to the log before."""
        count = array.array("i", [0])
        heard = self._heard + os.read(self._control, 4096)
        fcntl.ioctl(self._log, termios.FIONREAD, count)
        remaining = count[0]
        while remaining > 0 and (copied := self._copy(remaining)):
            remaining -= copied
        *lines, self._heard = heard.split(b"\n")
        self._heard = self._heard[-64:]
        for line in lines:
            self._note(line.decode("ascii", "replace"))

    def _note(self, line: str) -> None:
        """Take note of one control line. The build can write there too: what does not fit is not
        noted, but it is answered, since a process may wait."""
        words = line.split()
        if not words:
            return
        if words == ["ready"] and not self._admit():
            line = "again"
        last, due = False, self._next < len(self._job["steps"]) and not (self._why or self._now)
        if line == "ready" and due and self._caches is None:
            words = (line := f"start {self._next}").split()  # it need not ask for that too
        if words == ["start", str(self._next)] and due:
            self._add("step_started", step=self._next)
        elif words[:2] == ["end", str(self._next)] and self._now is not None and len(words) == 3:
            kills = self._cgroup.count_oom_kills()
            self._add(
                "step_ended",
                step=self._next,
                exit_code=int(words[2]) if words[2].isdigit() and len(words[2]) < 4 else 255,
                seconds=round(clock() - self._now["clock"], 3),
                oom_kills=kills,
                out_of_memory=kills > self._oom_kills,
                disk_full=self._disk_low or self._disk_free() < DISK_LOW,
            )
            self._disk_low = False
            last = words[2] != "0" or self._next == len(self._job["steps"])
            if last and not self._exits and self._job["prestarted"]:
                from .exit_events import watch

                self._exits = watch(self._job)
            self._cgroup.look()
        if self._why:
            self._answer("stop")
        elif self._caches is None or not self._caches.hold(line):
            if last:
                self._parting = clock() + PARTING, line
            elif not self._parting:  # else it said so twice
                self._answer(line)

    def _part(self) -> bool:
        """Let the driver go once its last word has waited. Return True if it was let go."""
        if not self._parting or clock() < self._parting[0]:
            return False
        self._answer(self._parting[1])
        self._parting = None
        return True

    def _admit(self) -> bool:
        """Hide from the container what it would see of a template, before anything runs in it.
        False: not yet, since dockerd does not answer."""
        if self._job["runtime"] == "runc" and self._place.woke():
            from .identity import show_boot_id

            try:
                show_boot_id(self._place, self._pid())
            except ContainerError:
                time.sleep(ADMIT_PAUSE)
                return False
        return True

    def _pid(self) -> int:
        """The container's first process, which is asked for once."""
        self._first = self._first or self._runtime.first(self._place)[1]
        return self._first

    def _settle(self, *, give_up: bool = False) -> None:
        """Let the driver go on once the caches are done. The time that they took is not the
        build's."""
        if self._caches and (done := self._caches.settle(give_up=give_up)):
            line, took = done
            self._began += took
            self._answer("stop" if self._why else line)

    def _answer(self, line: str) -> None:
        with suppress(BlockingIOError):  # the build filled it: none waits for an answer
            os.write(self._answers, f"{line}\n".encode())

    def _look(self, now: float) -> bool:
        """Timeouts, wishes to cancel, the disk. False: it cannot be killed."""
        self._disk_low = self._disk_low or self._disk_free() < DISK_LOW
        self._settle()
        if not self._why:
            runs = self._now is not None or self._job.get("sandbox")
            since = self._now["clock"] if self._now is not None else self._began
            if runs and now >= since + TICK:  # its start is in haste
                self._cgroup.look()
            self._why = "" if self._parting else self._reason_to_stop(now)
            if self._why:
                self._kill_at = now + (0 if self._job.get("sandbox") else TERM_GRACE)
                self._settle(give_up=True)
                self._answer("stop")
                self._terminate()
        elif self._killed_at and now > self._killed_at + self._runtime.KILL_GRACE:
            return False
        elif now >= self._kill_at:
            self._kill_at = now + TERM_GRACE
            self._killed_at = self._killed_at or now
            self._kill()
        return True

    def _terminate(self) -> None:
        if self._job["runtime"] == "runc":
            self._cgroup.terminate()
            return
        with suppress(ContainerError):  # then it is killed without a word
            self._runtime.terminate(self._place)

    def _kill(self) -> None:
        self._cgroup.kill()
        self._runtime.kill(self._place)

    def _must_end(self) -> bool:
        """True if the build is not wanted any more, before its container is there."""
        self._why = self._reason_to_stop(clock())
        return bool(self._why)

    def _reason_to_stop(self, now: float) -> str:
        if reason := self._place.read("cancel").strip():
            return reason
        if now >= self._began + self._job["timeout"] and not self._caches:
            return "build_timeout"
        if self._now is not None:
            limit = self._job["steps"][self._next]["timeout"]
            if limit is not None and now >= self._now["clock"] + limit:
                return "step_timeout"
        return ""

    def _disk_free(self) -> int:
        """Bytes, with those that are reserved for root: the build is root."""
        disk = os.statvfs(self._work)
        return disk.f_bfree * disk.f_frsize

    # --- end -------------------------------------------------------------------------------

    def _end(self, reason: str, code: int | None, message: str) -> None:
        self._spool.close()
        self._place.erase("registry")
        self._add("ended", reason=reason, exit_code=code, message=message, **self._cgroup.figures)
