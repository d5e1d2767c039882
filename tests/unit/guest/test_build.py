"""What a build says to its supervisor costs the supervisor little."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vmrunner.guest import docker, identity
from vmrunner.guest.build import GuestBuild
from vmrunner.guest.container_files import fill_box
from vmrunner.guest.rehearsal import JOB
from vmrunner.guest.state import Place


def test_who_asks_often_has_docker_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone, whose container did not wait for its build."""
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    fill_box(place, JOB)
    place.write("job.json", json.dumps(JOB))
    place.write("box/boot_id", "another\n")
    asked: list[bool] = []

    def inspect() -> dict[str, dict[str, int]]:
        asked.append(True)
        return {"State": {"Pid": os.getpid()}}

    monkeypatch.setattr(docker, "inspect", inspect)
    monkeypatch.setattr(identity, "show_boot_id", lambda *_: None)
    build = GuestBuild(place, work=str(tmp_path))
    control = place.fifo("control")
    os.write(control, b"ready\n" * 100)
    build._hear()
    os.close(control)
    assert asked == [True]
