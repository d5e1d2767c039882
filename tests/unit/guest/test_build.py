"""A build in its VM, up to where Docker would be asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vmrunner.guest.build import GuestBuild
from vmrunner.guest.container_files import fill_box
from vmrunner.guest.rehearsal import JOB
from vmrunner.guest.state import EventLog, Place, clock


def test_no_wish_counts_once_the_last_step_ended(tmp_path: Path) -> None:
    """Its driver hears of that end a moment later."""
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    fill_box(place, JOB)
    place.write("job.json", json.dumps({**JOB, "prestarted": 0}))
    build = GuestBuild(place, work=place.run)
    try:
        os.write(build._control, b"start 0\nend 0 0\n")
        build._read_control()
        place.write("cancel", "user")
        assert build._look(clock() + JOB["timeout"] + 1)
    finally:
        for fd in (build._log, build._control, build._answers):
            os.close(fd)
    assert [event["kind"] for event in EventLog(place.events).past] == [
        "step_started",
        "step_ended",
    ]
    assert not build._why
