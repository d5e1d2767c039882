"""Protocol of who runs the build's container: Docker in the VM (docker.py), or the system that
started it beside us (beside.py). Nothing else in here knows which; `Place.runtime` is the one.

Modules are its realisations. Each call may raise ContainerError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .command_io import Output
    from .pull import Pull
    from .state import EventLog, Place


class ContainerWord(Protocol):
    """A file that is readable when the runtime has something to say."""

    def fileno(self) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def __enter__(self) -> ContainerWord: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> object: ...


class Group(Protocol):
    """The processes of one command of a sandbox."""

    @property
    def shell(self) -> int | None:
        """Pid of its shell, where we see it."""

    def save(self, path: str) -> None: ...
    def processes(self) -> list[int]: ...
    def signal(self, number: int) -> None: ...
    def kill(self) -> None: ...
    def remove(self) -> None: ...


class Runtime(Protocol):
    """One container, the build's."""

    @property
    def KILL_GRACE(self) -> float:  # noqa: N802 - a module's constant
        """Seconds from KILL until it will not die."""

    def wake(self) -> None:
        """Let the runtime start, beside what comes first."""

    def is_there(self) -> bool:
        """True if it can be asked."""

    def lay_out(self, place: Place, job: dict[str, Any], work: str) -> None:
        """Prepare what a container of this shape needs, whatever is to run in it."""

    def make_volume(self, path: str, size: int) -> None:
        """Give a directory a limit of its own in bytes, where the runtime can."""

    def create(self, job: dict[str, Any], place: Place, work: str) -> None:
        """Have the container, unless there is one."""

    def pull(self, name: str, login: str) -> Pull:
        """Tries to have an image that `create` has missed."""

    def start(self, place: Place) -> None:
        """Start the container's driver."""

    def wait(self, place: Place) -> ContainerWord:
        """Open what becomes readable at the container's end."""

    def received(self, answer: ContainerWord, /) -> bytes:
        """Part of that; b"" when it has ended."""

    def exit_code(self, response: bytes, job: dict[str, Any], events: EventLog) -> int | None:
        """The exit code by all of that; None: the container ended without a word of it."""

    def first(self, place: Place) -> tuple[str, int]:
        """The container's id, and its first process as we see it."""

    def terminate(self, place: Place) -> None:
        """TERM to all processes in the container but its first."""

    def kill(self, place: Place) -> None:
        """Kill all processes in the container."""

    def saw_oom(self) -> bool:
        """True if it is known that the container ended for want of memory."""

    def images(self) -> list[str]:
        """The names of the images that are here."""

    def remove(self) -> None:
        """Kill the container and remove it."""

    def reach(self, place: Place) -> None:
        """Raises ContainerError where the container's files cannot be reached."""

    def enter(self, place: Place, work: str) -> None:
        """Go where the container sees its files, with no more rights than root has there."""

    def by_programs(
        self, path: str, work: str
    ) -> Callable[[Place, dict[str, Any], Output, Iterator[bytes], str], None] | None:
        """An operation on such a file by the container's own programs; None: `enter` leads to
        it."""

    def path_inside(self, path: str, work: str) -> str:
        """The path there of a file that the container knows by this one. Raises OSError for one
        that cannot be reached so."""

    def enter_network(self, place: Place) -> None:
        """Go where the container has its network."""

    def is_crowded(self, place: Place) -> bool:
        """True if the container has as many processes as it may."""

    def command_group(self, place: Place, name: str, tell: int, shell: int) -> Group:
        """The processes of a command whose shell has that FIFO open, and says that this is its
        pid."""

    def saved_group(self, place: Place, path: str) -> Group:
        """The group that was saved there. Raises FileNotFoundError."""
