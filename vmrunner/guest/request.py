"""A command that vmrunner gave over SSH, as its handlers get it."""

from __future__ import annotations

from collections.abc import Callable

from .output import Output
from .state import Place

INPUT = 32 << 20  # bytes of a job at most


class Request:
    """One command: its epoch, its arguments, and where it answers."""

    def __init__(
        self,
        place: Place,
        epoch: int,
        arguments: list[str],
        work: str,
        out: Output,
        launch: Callable[[], object],
    ) -> None:
        self.place = place
        self.epoch = epoch
        self.work = work
        self.out = out
        self.launch = launch
        self.afterwards: Callable[[], object] = lambda: None  # once its end was told
        self.gzip = ["--gzip"] if "--gzip" in arguments else []
        self.arguments = [word for word in arguments if word != "--gzip"]


def received() -> bytes:
    """All of stdin."""
    with open(0, "rb", closefd=False) as file:
        return file.read(INPUT)
