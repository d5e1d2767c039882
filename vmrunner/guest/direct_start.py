"""The opening of a build whose container waits, by the process that was given the job.

`run` is another process: to have it begin takes longer, under emulation, than all that lies between
the order and the first line. So what begins the steps and hears that line is this one. It holds
`alive` as `run` does, and `run` goes on after it as after one that died.
"""

from __future__ import annotations

import os
import select
from collections.abc import Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from .build import GuestBuild
from .follow import follow

if TYPE_CHECKING:
    from .command_io import Request

FIRST_OUTPUT = 4096  # bytes of the log at most
ROOM = 4  # times that much: what is cut of a smaller log is in the memory of who reads it
OUTPUT_PATIENCE = 0.25  # seconds for them: no timeout is looked at meanwhile


def open_and_follow(request: Request, alive: int) -> int:
    """Do both, with the lock `alive`. Returns the exit code."""
    with closing(_opening(request, alive)) as opening:
        next(opening)
        return follow(request, opening)


def _opening(request: Request, alive: int) -> Generator[None]:
    """Begin the steps, then hear the first of their output; follow at each stop. To be closed, and
    `run` is launched."""
    try:
        build = _Opened(request.place, work=request.work)
        build.begin()
        yield
        if build.await_output():
            yield
    finally:
        os.close(alive)
        request.launch()


class _Opened(GuestBuild):
    """A build up to its first output."""

    def begin(self) -> None:
        """Do what comes before the first step, once its driver asks."""
        if self._place.claim(self._job["attempt"]):
            self._start()
            with suppress(BlockingIOError):
                self._read_control()

    def await_output(self) -> bool:
        """Return True if there was output before a while was over, or the driver spoke."""
        if self._now is None or self._job["log_bytes"] < ROOM * FIRST_OUTPUT:
            return False
        poll = select.poll()
        poll.register(self._log, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        poll.poll(OUTPUT_PATIENCE * 1000)
        return self._copy(FIRST_OUTPUT) > 0
