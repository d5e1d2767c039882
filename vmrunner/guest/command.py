"""Commands of a sandbox: each under a process of its own, which has the container's driver start
it, keeps what it writes and ends it in time. That one needs no connection.

BOX/commands/ID/      what the container sees: run.sh, and the FIFOs in, out, err, tell, go

The driver forks a shell for `run.sh`. That waits until it is in a control group of its own, runs
the command as a child and says how that ended.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .command_follower import CallerSink
from .command_records import end, has_room, taken
from .container_files import exports
from .state import Place, clock

if TYPE_CHECKING:
    from .runtime import Group

FIFOS = ("in", "out", "err", "tell", "go")
FILES = (*FIFOS, "run.sh")
STREAM = 8 << 20  # bytes that are kept of one stream
READ = 256 << 10
TICK = 0.5  # seconds between looks at the timeout and at the shell
TERM_GRACE = 5.0  # seconds from TERM to KILL
LAST = 0.5  # seconds for its shell to end once it has said how the command did
START = 120.0  # seconds for the driver to answer
LOOKS = 100  # at its children, until the shell of a command is among them
CROWDED = 2.0  # … after which a container that is full of processes is why it did not
KILLED = 128 + signal.SIGKILL
TIMED_OUT = 124  # of one that ends with 0 when it is told to at its timeout
MARK = "\n… truncated: {} bytes dropped\n"


class Stream:
    """One stream of a command, as far as it is kept."""

    def __init__(self, place: Place, path: str) -> None:
        self._place = place
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = self.dropped = 0

    def write(self, data: bytes) -> None:
        kept = b"" if self.dropped else data[: STREAM - self.size]
        if kept and not has_room(self._place, len(kept)):
            kept = b""
        self._append(kept)
        self.dropped += len(data) - len(kept)

    def close(self) -> None:
        """Say how much is missing."""
        if self.dropped:
            self._append(MARK.format(self.dropped).encode())
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        while data:
            written = os.write(self._fd, data)
            self.size += written
            data = data[written:]


class Command:
    """The loop over the command's FIFOs, its shell and its time."""

    def __init__(
        self, place: Place, order: dict[str, Any], path: str, sink: CallerSink | None = None
    ) -> None:
        self._place = place
        self._sink = sink
        self._order = order
        self._path = path
        self._box = f"commands/{order['id']}"  # in the box
        self._streams = {name: Stream(place, f"{path}/{name}") for name in ("out", "err")}
        self._pipes: dict[int, Stream] = {}
        self._partial = b""  # words of the shell that are not whole yet
        self._group: Group | None = None
        self._shell: int | None = None  # a descriptor that is readable once it ended
        self._began = clock()
        self._kill_at: float | None = None
        self._timed_out = False
        self._code: int | None = None
        self._input: int | None = None
        self._log_fifo: int | None = None

    def run(self) -> None:
        """Start it, and follow it to its end."""
        self._prepare()
        self._log(f"$ {self._order['title']}\n".encode())
        self._tell_driver(f"command {self._order['id']}")
        poll = select.poll()
        for fd in (*self._pipes, self._tell, self._wake):
            poll.register(fd, select.POLLIN)
        while self._code is None:
            if self._sink is not None:
                poll.register(self._sink.fd, select.POLLOUT if self._sink.waits else 0)
            self._take(poll)
            self._look()
            if self._sink is not None:
                self._sink.pump()
        if self._timed_out and self._group is not None:
            self._group.kill()  # its shell has ended; what heeds no TERM, or is new, has not
        for fd in self._pipes:
            remaining = fcntl.fcntl(
                fd, fcntl.F_GETPIPE_SZ
            )  # what it left behind may write for ever
            while remaining > 0 and (size := self._copy(fd)):
                remaining -= size
        for stream in self._streams.values():
            stream.close()
        state = end(
            self._path,
            exit_code=self._code or (TIMED_OUT if self._timed_out else 0),
            timed_out=self._timed_out,
            seconds=round(clock() - self._began, 3),
            truncated=any(stream.dropped for stream in self._streams.values()),
            out=self._streams["out"].size,
            err=self._streams["err"].size,
        )
        if self._sink is not None:
            self._sink.finish(state)

    def give_up(self) -> None:
        """Leave nothing of it that runs."""
        if self._group is not None:
            self._group.kill()
        self._place.discard(self._box, FILES)

    def _take(self, poll: select.poll) -> None:
        """Wait for news, and take it in."""
        ready = dict(poll.poll(TICK * 1000))
        for fd in self._pipes.keys() & ready.keys():
            self._copy(fd)
        if self._wake in ready:
            os.read(self._wake, 4096)
            self._close_input()
        if self._tell in ready and self._read_shell() and self._shell is not None:
            poll.register(self._shell, select.POLLIN)
        if ready.get(self._tell, 0) & select.POLLHUP and self._code is None:
            self._code = KILLED
            assert self._group is not None
            self._group.kill()
        if self._shell in ready and self._code is None and not self._read_shell():
            self._code = KILLED  # it did not say how the command ended
            assert self._group is not None
            self._group.kill()
        if self._sink is not None and ready.get(self._sink.fd, 0) & ~select.POLLOUT:
            poll.unregister(self._sink.fd)
            self._sink = None  # it has gone: others may follow

    def _prepare(self) -> None:
        self._place.make_directory(self._box)
        mask = os.umask(0)
        for name in FIFOS if self._order["stdin"] else FIFOS[1:]:
            self._place.make_fifo(f"{self._box}/{name}")
        os.umask(mask)
        self._pipes = {self._fifo(name): stream for name, stream in self._streams.items()}
        self._tell, self._go = self._place.ear(f"{self._box}/tell"), self._fifo("go")
        if self._order["stdin"]:
            self._input = self._fifo("in")
        self._wake = os.open(f"{self._path}/wake", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._place.put(f"{self._box}/run.sh", script(self._order, self._place.begin))

    def _fifo(self, name: str) -> int:
        return self._place.fifo(f"{self._box}/{name}")

    def _tell_driver(self, line: str) -> None:
        fd = self._place.fifo("answers")
        os.set_blocking(fd, True)
        os.write(fd, f"{line}\n".encode())
        os.close(fd)

    # --- what comes of it ---------------------------------------------------------------------

    def _copy(self, fd: int) -> int:
        """Keep what came on one stream; how many bytes it was."""
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return 0
        self._pipes[fd].write(data)
        self._log(data)
        return len(data)

    def _log(self, data: bytes) -> None:
        """Write to the sandbox's log, which is stored: what no command of it may hold up."""
        if self._log_fifo is None:
            self._log_fifo = self._place.fifo("log")
            os.set_blocking(self._log_fifo, True)
        while data:
            data = data[os.write(self._log_fifo, data) :]

    def _read_shell(self) -> bool:
        """Take note of what the shell says; True when there was anything. The build can write there
        too: what does not fit is not noted."""
        try:
            words = self._partial + os.read(self._tell, 4096)
        except BlockingIOError:
            return False
        *lines, self._partial = words.split(b"\n")
        self._partial = self._partial[-64:]
        for line in lines:
            word, _, number = line.decode("ascii", "replace").partition(" ")
            if word == "begin" and self._group is None:
                self._begin(int(number) if number.isdigit() and len(number) < 10 else 0)
            elif word == "end" and number.isdigit() and len(number) < 10 and self._code is None:
                self._code = int(number) & 255
        return True

    def _begin(self, shell: int) -> None:
        """Put the shell into a group of its own; let it go on. `shell`: its pid, as it sees it."""
        name = self._order["id"]
        self._group = self._place.runtime.command_group(self._place, name, self._tell, shell)
        self._group.save(f"{self._path}/group")
        if self._group.shell is not None:
            with suppress(ProcessLookupError):  # then its end is seen by who follows
                self._shell = os.pidfd_open(self._group.shell)
        self._began = clock()
        os.write(self._go, b"go\n")
        self._close_input()

    def _close_input(self) -> None:
        """End its stdin, once all of that was taken. Its shell has opened it by then."""
        if self._input is None or self._group is None:
            return
        if taken(self._path)[1]:
            os.close(self._input)
            self._input = None

    def _look(self) -> None:
        """End it when its time is over, or when the driver does not start it."""
        now, limit = clock(), self._order["timeout"]
        if self._group is None:
            if now >= self._began + CROWDED and self._place.runtime.is_crowded(self._place):
                raise OSError("the container has as many processes as it may: end some")
            if now >= self._began + START:
                raise OSError(f"the container did not start it within {START:.0f} s")
        elif self._kill_at is not None:
            if now >= self._kill_at:
                self._group.kill()
                self._kill_at = now + TERM_GRACE
        elif limit is not None and now >= self._began + limit:
            self._timed_out = True
            self._kill_at = now + TERM_GRACE
            self._group.signal(signal.SIGTERM)

    def leave(self) -> None:
        """Clean up; where it left processes behind, in a process that minds them."""
        assert self._group is not None
        if self._shell is not None:
            select.select([self._shell], [], [], LAST)
        if self._group.processes():
            if os.fork():
                return
            for fd in set(range(1024)) - self._pipes.keys():
                with suppress(OSError):  # the caller waits until all have closed its connection
                    os.close(fd)
            self._drain()
            self._clean()
            os._exit(0)
        self._clean()

    def _clean(self) -> None:
        assert self._group is not None
        self._group.remove()
        self._place.discard(self._box, FILES)
        self._tell_driver("reap")

    def _drain(self) -> None:
        """Take what is still written, until no writer remains."""
        assert self._group is not None
        while self._group.processes():
            for fd in select.select(list(self._pipes), [], [], TICK)[0]:
                with suppress(BlockingIOError):
                    os.read(fd, READ)


def script(order: dict[str, Any], begin: str = Place.begin) -> bytes:
    """The shell's part; `$here` is BOX as the container sees it."""
    env = {name: value.encode() for name, value in order["env"].items()}
    line = shlex.join(order["argv"])
    if order["user"]:
        line = f"su -s /bin/sh -c {shlex.quote(f'exec {line}')} {shlex.quote(order['user'])}"
    stdin = "$box/in" if order["stdin"] else "/dev/null"
    # What this shell itself would say (of a line of its own, or that its child was terminated) is
    # no word of the command's: its streams are those of the inner shell alone.
    first = shlex.quote(shlex.split(line)[0])
    place = shlex.quote(order["cwd"])
    text = f"""box=$here/commands/{order["id"]}
exec 3>&- 4>&- 5>"$box/tell" <"{stdin}" >"$box/out" 6>"$box/err" 2>"/dev/null"
{begin}
read -r _ <"$box/go"
(
. "$here/env"
@ENV@cd -- {place} || {{ echo sh: {place}: no such directory >&6; exit 126; }}
command -v {first} >"/dev/null" || {{ echo sh: {first}: not found >&6; exit 127; }}
exec {line} 2>&6 5>&- 6>&-
)
echo "end $?" >&5
"""
    return text.encode().replace(b"@ENV@", exports(env), 1)


def container_pid(place: Place) -> int:
    """Return the driver's pid in the VM. It is asked once."""
    text = place.read("container")
    if not text:
        pid = place.job().get("prestarted") or place.runtime.first(place)[1]
        text = str(pid)
        place.write("container", text)
    return int(text)


def shell_of(root: int, tell: os.stat_result) -> int:
    """The pid of the driver's child that has that FIFO open as a command's shell has it."""
    for _ in range(LOOKS):
        with open(f"/proc/{root}/task/{root}/children", encoding="ascii") as file:
            children = file.read().split()
        for child in reversed(children):
            with suppress(OSError):
                found = os.stat(f"/proc/{child}/fd/5")
                if (found.st_dev, found.st_ino) == (tell.st_dev, tell.st_ino):
                    return int(child)
        time.sleep(0.01)  # the kernel may leave one out while another ends
    raise OSError("the driver has no shell for this command")
