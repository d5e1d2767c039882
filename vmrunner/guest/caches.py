"""Caches of a build: tars beside the container, unpacked into it before the first step and packed
out of it after the last.

A process of its own goes where the container sees its files, with no more rights than root has
there, and with all loaded before that it needs: a link in a cache, or one that the build left,
leads to what the build could reach anyhow. What it writes is the build's word; the host stores it
and never looks inside.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import syscalls
from .cache_archive import Bounded, NotCached, deadline, pack, unpack
from .command_io import Output
from .state import OTHER_ATTEMPT, ContainerError, EventLog, Place, clock

if TYPE_CHECKING:
    from .command_io import Request

SECONDS = 120.0  # for all caches of a build, in; and again, out
CLEAR_GRACE = 10.0  # for what must be cleared after that
MEMORY = 1 << 30  # bytes of address space
WORDS = 200  # characters of a complaint
PIECE = 1 << 18


class CacheWork:
    """The caches of one build, and the process that is at them now, if there is one."""

    def __init__(
        self,
        place: Place,
        job: dict[str, Any],
        events: EventLog,
        *,
        tell: Callable[..., None],
        work: str,
    ) -> None:
        """`tell`: adds an event; `work`: the work directory."""
        self._place = place
        self._job = job
        self._rules = job["caches"]
        self._events = events
        self._tell = tell
        self._directory = work
        self._child = 0
        self._packs = False
        self._began = 0.0
        self._owed = ""

    def __bool__(self) -> bool:
        return self._child != 0

    def hold(self, line: str) -> bool:
        """True if the driver gets no answer to this line yet: before the first step the caches are
        filled; after the last, if all went well, they are packed."""
        if self._child:
            return line == self._owed
        packs = line.startswith("end ")
        numbers = self._wanted(packs=packs)
        done = any(e["kind"] == "cache" and e["packed"] == packs for e in self._events.past)
        if not numbers or done or not (self._all_well() if packs else line == "ready"):
            return False
        try:
            self._place.runtime.reach(self._place)
        except ContainerError as error:
            for number in numbers:
                self._tell("cache", **_report(number, packed=packs, error=str(error)))
            return False
        self._owed, self._packs, self._began = line, packs, clock()
        self._begin(numbers)
        return True

    def _wanted(self, *, packs: bool) -> list[int]:
        what = "pack" if packs else "restore"
        return [number for number, rule in enumerate(self._rules) if rule[what]]

    def _all_well(self) -> bool:
        last = self._events.last("step_ended")
        return bool(last and last["step"] + 1 == len(self._job["steps"]) and last["exit_code"] == 0)

    def settle(self, *, give_up: bool = False) -> tuple[str, float] | None:
        """Tell what came of each; return the line that is answered now, and how long they took.
        None while it is at it. What takes too long, or is not waited for any more, is killed."""
        late = give_up or clock() > self._began + SECONDS + CLEAR_GRACE
        if late:
            os.kill(self._child, signal.SIGKILL)
        numbers = self._wanted(packs=self._packs)
        all_told = len(self._reports()) == len(numbers)  # then its end is a moment away
        if not os.waitpid(self._child, 0 if late or all_told else os.WNOHANG)[0]:
            return None
        self._child = 0
        reports = self._reports()  # once it has ended: it may have reported just then
        lost = "the build was to end" if give_up else f"it broke off, or took over {SECONDS:.0f} s"
        for number in numbers:
            report = reports.get(number) or _report(number, packed=self._packs, error=lost)
            self._tell("cache", **report)
            if not self._packs:
                with suppress(FileNotFoundError):
                    os.unlink(self._place.cache(number))  # its room is the build's
        return self._owed, clock() - self._began

    def _reports(self) -> dict[int, dict[str, Any]]:
        """The reports of those that ended, by their number."""
        reports = {}
        for line in self._place.read("caches").splitlines():
            with suppress(ValueError, KeyError):  # the last one may be cut
                report = json.loads(line)
                reports[report["cache"]] = report
        return reports

    def _begin(self, numbers: list[int]) -> None:
        """Start the process. It rings at the FIFO `control` in the end."""
        self._place.write("caches", "")
        os.makedirs(self._place.caches, 0o700, exist_ok=True)
        parent = os.getpid()
        self._child = os.fork()
        if self._child:
            return
        try:
            self._work(parent, numbers)
        except BaseException as error:  # noqa: BLE001 - a fork must not return into its parent
            print(f"caches: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(0)

    # --- in the child ---

    def _work(self, parent: int, numbers: list[int]) -> None:
        bell = self._place.fifo("control")
        report = os.open(f"{self._place.run}/caches", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        files = {number: self._open(number) for number in numbers}
        check = deadline(SECONDS)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        inside = self._place.runtime.path_inside
        sys.path.clear()  # from here on nothing may be loaded: it would be the container's
        sys.meta_path.clear()
        enter(self._place, self._directory)
        syscalls.die_with(parent)  # only now: other rights take that back
        for number in numbers:
            fd = files[number]
            try:
                root = inside(self._rules[number]["path"], self._directory)
                with os.fdopen(fd, "wb" if self._packs else "rb") as file:
                    if self._packs:
                        out = Bounded(file, self._job["cache_bytes"])
                        pack(root, out, gzip=self._job["cache_gzip"], check=check)
                    else:
                        unpack(file, root, check=check)
                    file.flush()
                    outcome = _report(number, packed=self._packs, size=os.fstat(fd).st_size)
            except NotCached as error:
                outcome = _report(number, packed=self._packs, error=str(error))
            except (OSError, ValueError, MemoryError, tarfile.TarError) as error:
                text = f"{type(error).__name__}: {error}"
                outcome = _report(number, packed=self._packs, error=text)
            os.write(report, json.dumps(outcome).encode() + b"\n")
        with suppress(BlockingIOError):
            os.write(bell, b"\n")

    def _open(self, number: int) -> int:
        if not self._packs:
            return os.open(self._place.cache(number), os.O_RDONLY | os.O_CLOEXEC)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return os.open(self._place.cache(number, packed=True), flags, 0o600)


def _report(number: int, *, packed: bool, size: int = 0, error: str = "") -> dict[str, Any]:
    return {"cache": number, "packed": packed, "bytes": size, "error": error[:WORDS]}


def enter(place: Place, work: str) -> None:
    """Go where the container sees its files, as root there."""
    place.runtime.enter(place, work)


# --- commands ------------------------------------------------------------------------------------


def take(place: Place, number: int, size: int) -> None:
    """Keep the tar on stdin until the container is there; one that is cut off is none."""
    path = place.cache(number)
    os.makedirs(place.caches, 0o700, exist_ok=True)
    new = f"{path}.{os.getpid()}"
    try:
        with open(0, "rb", closefd=False) as stdin, open(new, "wb") as file:
            while piece := stdin.read(PIECE):
                file.write(piece)
        if os.stat(new).st_size != size:
            raise OSError("it was cut off")
        os.rename(new, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new)


def give(place: Place, number: int, out: Output) -> None:
    """Print what was packed."""
    with open(place.cache(number, packed=True), "rb") as file:
        while piece := file.read(PIECE):
            out.write(piece)


def put_cache(request: Request) -> int:
    """Keep a cache until the container is there, unless that is too late."""
    if request.place.was_started() or request.place.job():
        return OTHER_ATTEMPT
    take(request.place, *map(int, request.arguments))
    return 0


def get_cache(request: Request) -> int:
    give(request.place, int(request.arguments[0]), request.out)
    return 0


COMMANDS = {"put_cache": put_cache, "get_cache": get_cache}
