"""One VM of a local cloud that shows it as JSON."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vmrunner_localclouds.vms import Vm

GONE: Final = "gone"


@dataclass(slots=True, eq=False, kw_only=True)
class LocalMachine:
    """One machine, as far as a test may know and change it. Changes of state go through the
    methods."""

    shown: dict[str, Any]  # as the API shows it
    never_runs: bool = False  # there is no capacity for it
    stuck: bool = False  # accepts its death, and does not die
    deleting: bool = False
    serial: bytes = b""  # of its first serial port, where it has no body
    history: list[str] = field(default_factory=list)  # its states
    body: Vm | None = None  # with one it runs when that runs, and ends when that ends
    _ends: list[Callable[[], None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.shown["name"])

    @property
    def id(self) -> str:
        return str(self.shown["id"])

    @property
    def state(self) -> str:
        """A state of the API's, `gone`, or empty: it was never given room."""
        return self.history[-1] if self.history else ""

    @property
    def gone(self) -> bool:
        return self.state == GONE

    @property
    def alive(self) -> bool:
        """True if it is there, stopped or not, with no delete accepted."""
        return not (self.gone or self.deleting or self.never_runs)

    @property
    def output(self) -> bytes:
        """The output of its first serial port."""
        return self.serial if self.body is None else self.body.console

    def release(self) -> None:
        """Finish a delete that was stuck."""
        self.stuck = False
        if self.deleting:
            self._ended()

    @abstractmethod
    def _ended(self) -> None:
        """Remove it, unless it is stuck."""
