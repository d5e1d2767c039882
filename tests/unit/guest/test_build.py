"""A build in its VM, up to where Docker would be asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmrunner.guest.build import GuestBuild
from vmrunner.guest.container_files import fill_box
from vmrunner.guest.state import EventLog, Place, clock
from vmrunner.guest.warm_up import JOB


@contextmanager
def built(tmp_path: Path, **changes: Any) -> Iterator[GuestBuild]:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    fill_box(place, JOB)
    place.write("job.json", json.dumps({**JOB, "prestarted": 0, **changes}))
    build = GuestBuild(place, work=place.run)
    try:
        yield build
    finally:
        for fd in (build._log, build._control, build._answers):
            os.close(fd)


def hear(build: GuestBuild, words: bytes) -> bytes:
    """Have the driver say this. Return what it is answered at once."""
    os.write(build._control, words)
    build._read_control()
    try:
        return os.read(build._answers, 4096)
    except BlockingIOError:
        return b""


def test_no_wish_counts_once_the_last_step_ended(tmp_path: Path) -> None:
    """Its driver hears of that end a moment later."""
    with built(tmp_path) as build:
        hear(build, b"start 0\nend 0 0\n")
        build._place.write("cancel", "user")
        assert build._look(clock() + JOB["timeout"] + 1)
        kinds = [event["kind"] for event in EventLog(build._place.events).past]
    assert kinds == ["step_started", "step_ended"]
    assert not build._why


def test_a_last_word_said_twice_waits_as_well(tmp_path: Path) -> None:
    """A driver says it again to a supervisor that took over."""
    with built(tmp_path) as build:
        assert hear(build, b"start 0\nend 0 0\nend 0 0\n") == b"start 0\n"


def test_a_driver_that_is_ready_may_begin(tmp_path: Path) -> None:
    with built(tmp_path) as build:
        assert hear(build, b"ready\n") == b"start 0\n"


def test_caches_are_restored_before_a_step_begins(tmp_path: Path) -> None:
    """Also where none of them does anything at this moment."""
    with built(tmp_path, caches=[{"path": "/x", "restore": False, "pack": True}]) as build:
        assert hear(build, b"ready\n") == b"ready\n"
        assert build._now is None
