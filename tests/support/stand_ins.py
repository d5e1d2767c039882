"""VMs for a local cloud that boot nothing and do what a test says."""

from __future__ import annotations

import time
from collections.abc import Callable

from vmrunner_localclouds.vms import GuestSpec, MetadataRequest, Reply


def until(true: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for it; fails when it does not come true in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


class StandIn:
    """A VM that does what a test says."""

    def __init__(self, guest: GuestSpec, answer: Callable[[MetadataRequest], Reply]) -> None:
        self.guest = guest
        self.answer = answer
        self.started = self.stopped = self.killed = self.frozen = False
        self.trouble: OSError | None = None
        self.code: int | None = None
        self.polls = 0  # how often its fleet looked
        self.console = b""
        self.complaint = ""

    def start(self) -> None:
        if self.trouble:
            raise self.trouble
        self.started, self.stopped = True, False

    def poll(self) -> int | None:
        self.polls += 1
        return -9 if self.killed or self.stopped else self.code

    def stop(self) -> None:
        self.stopped = True

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False

    def kill(self) -> None:
        self.killed = True


class StandIns:
    """Instead of `Vms`."""

    def __init__(self) -> None:
        self.made: list[StandIn] = []
        self.trouble: OSError | None = None

    def address(self) -> str:
        return f"127.64.0.{len(self.made) + 1}"

    def make(self, guest: GuestSpec, answer: Callable[[MetadataRequest], Reply]) -> StandIn:
        self.made.append(made := StandIn(guest, answer))
        made.trouble = self.trouble
        return made
