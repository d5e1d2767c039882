"""The build's container as another one beside ours, which the system has started: a unit.

We see none of its processes. It has two directories with us: the work directory, and the box, in
which it may write where gVisor runs it. So nothing in the box is opened by its path.

BOX/alive     a FIFO whose one writer is the driver: when that is dead, by whatever cause, process 1
              of our container says so in RUN/gone (init.py)
BOX/wishes    a FIFO that a child of the driver's reads: signals for all that runs there
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from . import syscalls
from .state import ContainerError, EventLog, Place
from .unit_lay import BOX

if TYPE_CHECKING:
    from .command_io import Output
    from .pull import Pull
    from .runtime import ContainerWord

KILL_GRACE = 10.0  # seconds from KILL: the whole unit is deleted then
SECRETS = "/run/build-secrets"
IDENTITY = "/run/identity"
GONE = "gone"
ABSENT = "the build's container is another one beside ours: its processes cannot be seen"


class UnitPlace(Place):
    """The directories of a unit's supervisor."""

    begin = 'read -r begun _ <"/proc/self/stat"\necho "begin $begun" >&5'

    def __init__(
        self,
        run: str = "/run/vmrunner",
        lib: str = "/var/lib/vmrunner",
        *,
        box: str = BOX,
        secrets: str = SECRETS,
    ) -> None:
        super().__init__(run, lib)
        from . import beside, unit_tars

        self.runtime = beside
        self.commands = unit_tars.COMMANDS
        self.box, self.secrets = box, secrets

    def woke(self) -> bool:
        return False

    # --- the box, by the descriptor of its directory ------------------------------------------

    def fifo(self, name: str, mode: int = os.O_RDWR) -> int:
        """Raises OSError for what is no FIFO, or lies elsewhere."""
        with _Parent(self.box, name) as (above, last):
            seen = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            if not stat.S_ISFIFO(os.fstat(seen).st_mode):
                raise OSError(f"{name} in the box is no FIFO any more")
            return os.open(f"/proc/self/fd/{seen}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(seen)

    def ear(self, name: str) -> int:
        return self.fifo(name, os.O_RDONLY)

    def has(self, name: str) -> bool:
        try:
            with _Parent(self.box, name) as (above, last):
                os.stat(last, dir_fd=above, follow_symlinks=False)
        except OSError:
            return False
        return True

    def put(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _Parent(self.box, name) as (above, last):
            with suppress(FileNotFoundError):
                os.unlink(last, dir_fd=above)
            fd = os.open(last, flags, 0o644, dir_fd=above)
        with os.fdopen(fd, "wb") as file:
            file.write(data)

    def make_fifo(self, name: str) -> None:
        with _Parent(self.box, name) as (above, last), suppress(FileExistsError):
            os.mkfifo(last, 0o666, dir_fd=above)

    def make_directory(self, name: str) -> None:
        with _Parent(self.box, name) as (above, last), suppress(FileExistsError):
            os.mkdir(last, 0o755, dir_fd=above)

    def rename(self, name: str, to: str) -> None:
        with _Parent(self.box, name) as (above, last), _Parent(self.box, to) as (below, new):
            os.rename(last, new, src_dir_fd=above, dst_dir_fd=below)

    def discard(self, name: str, files: tuple[str, ...]) -> None:
        """Remove a directory with these. More that the build made there stays: to look for it could
        take for ever."""
        with suppress(OSError), _Parent(self.box, f"{name}/.") as (directory, _):
            for file in files:
                with suppress(OSError):
                    os.unlink(file, dir_fd=directory)
        with suppress(OSError), _Parent(self.box, name) as (above, last):
            os.rmdir(last, dir_fd=above)


class _Parent:
    """The directory of a name in the box, as a descriptor, and the name's last part. No part of it
    is a link."""

    def __init__(self, box: str, name: str) -> None:
        self._parts = [box, *name.split("/")]

    def __enter__(self) -> tuple[int, str]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._parts[0], flags)
        try:
            for part in self._parts[1:-1]:
                below = os.open(part, flags, dir_fd=self._fd)
                os.close(self._fd)
                self._fd = below
        except OSError:
            os.close(self._fd)
            raise
        return self._fd, self._parts[-1]

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class _Gone:
    """Readable once the driver is dead."""

    def __init__(self, place: Place) -> None:
        path = f"{place.run}/{GONE}"
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def settimeout(self, _: float | None, /) -> None:
        pass

    def recv(self, _: int, /) -> bytes:
        return b""  # what is readable stays so, for whoever comes after us

    def __enter__(self) -> _Gone:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


# --- the runtime ---------------------------------------------------------------------------------


def wake() -> None:
    """Nothing: the system has started it."""


def is_there() -> bool:
    return True


def lay_out(place: Place, job: dict[str, Any], work: str) -> None:
    """Complete a unit's job, which knows no container: the system has mounted all that it needs."""
    if not job.pop("unit", False):
        raise OSError("this job is for a VM, and this is a unit")
    job |= {"container": "of this unit", "runtime": "unit", "network": "open"}
    job |= {"docker": False, "privileged": False}


def make_volume(path: str, size: int) -> None:
    """Nothing: all of ours lies in one volume that the system has limited."""


def create(job: dict[str, Any], place: Place, work: str) -> None:
    """Nothing: it is there from its birth."""


def pull(name: str, login: str) -> Pull:
    raise ContainerError(0, "the system pulls a unit's image")


def start(place: Place) -> None:
    """Nothing: its driver waits at the FIFOs."""


def wait(place: Place) -> ContainerWord:
    return _Gone(place)


def received(answer: ContainerWord, /) -> bytes:
    return answer.recv(1)


def exit_code(response: bytes, job: dict[str, Any], events: EventLog) -> int | None:
    """Exit code by the driver's last word: it ends when a step has failed or the last is done."""
    last = events.last("step_ended")
    if last is None or not (last["exit_code"] or last["step"] + 1 == len(job["steps"])):
        return None
    return int(last["exit_code"])


def first(place: Place) -> tuple[str, int]:
    raise ContainerError(0, ABSENT)


def terminate(place: Place) -> None:
    tell(place, "all TERM")


def kill(place: Place) -> None:
    tell(place, "all KILL")


def end(place: Place) -> None:
    """Kill all processes in the container, and let its driver go."""
    kill(place)
    _write(place, "answers", "stop")


def tell(place: Place, order: str) -> None:
    """Have a signal sent in the container."""
    _write(place, "wishes", order)


def _write(place: Place, name: str, line: str) -> None:
    """Write to a FIFO of the box, unless the build has filled or spoiled it: then the unit goes in
    the end."""
    with suppress(OSError):
        fd = place.fifo(name)
        with suppress(BlockingIOError):
            os.write(fd, f"{line}\n".encode())
        os.close(fd)


def saw_oom() -> bool:
    return False


def images() -> list[str]:
    return []


def remove() -> NoReturn:
    raise ContainerError(404, ABSENT)


def reach(place: Place) -> None:
    """Nothing: the work directory is ours too."""


def by_programs(
    path: str, work: str
) -> Callable[[Place, dict[str, Any], Output, Iterator[bytes], str], None] | None:
    from .unit_files import operate

    path = os.path.normpath(os.path.join(work, path))
    return None if path == work or path.startswith(f"{work}/") else operate


def path_inside(path: str, work: str) -> str:
    path = os.path.normpath(os.path.join(work, path))
    if path != work and not path.startswith(f"{work}/"):
        raise OSError(errno.EXDEV, f"it is outside of {work}, where a unit's files are reached")
    return path.removeprefix(work) or "/"


def enter_network(place: Place) -> None:
    """Nothing: both containers have one."""


def is_crowded(place: Place) -> bool:
    return False


def command_group(place: Place, name: str, tell: int, shell: int) -> CommandProcesses:
    return CommandProcesses(place, shell)


def saved_group(place: Place, path: str) -> CommandProcesses:
    with open(path, encoding="ascii") as file:
        return CommandProcesses(place, int(file.read()))


class CommandProcesses:
    """The processes of one command, which the driver's child finds by their parents."""

    shell = None

    def __init__(self, place: Place, pid: int) -> None:
        """`pid`: its shell's, as that one sees it."""
        self._place = place
        self._pid = pid

    def save(self, path: str) -> None:
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(str(self._pid))
        os.rename(f"{path}.new", path)

    def processes(self) -> list[int]:
        """None that we could see."""
        return []

    def signal(self, number: int) -> None:
        tell(self._place, f"{self._pid} {number}")

    def kill(self) -> None:
        tell(self._place, f"{self._pid} KILL")

    def remove(self) -> None:
        """Nothing: there is no group of the kernel's."""


def enter(place: Place, work: str) -> None:
    """Into the work directory, which is then all that there is: a link leads to nothing of ours."""
    os.chroot(work)
    os.chdir("/")
    syscalls.keep_rights_to_files()
