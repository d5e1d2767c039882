"""Who opens a build whose container waits: the process that was given it, or `run`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vmrunner.guest import direct_start, supervisor
from vmrunner.guest.command_io import Output, Request
from vmrunner.guest.prestart import READY
from vmrunner.guest.state import Place
from vmrunner.guest.warm_up import JOB, SHAPE

CACHES = [{"path": "/x", "restore": True, "pack": False}]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    waiting = {"shape": SHAPE, "pid": os.getpid(), "id": "c0ffee"}
    place.write(READY, json.dumps(waiting))
    Path(place.prestarting).touch()
    return place


@pytest.mark.parametrize(
    ("changes", "was", "opener"),
    [
        ({}, "", "opening"),
        ({"caches": CACHES}, "", "run"),  # its restore outlasts an opening
        ({}, "rehearsal/1", "refused"),
    ],
)
def test_one_process_opens_a_build(
    changes: dict[str, Any], was: str, opener: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def opened(_: Request, alive: int) -> int:
        seen.append("opening")
        os.close(alive)
        return 0

    job = {**JOB, "sandbox": False, **changes}
    del job["due"]
    if was:
        place.claim(was)
    monkeypatch.setattr(supervisor, "received", lambda: json.dumps(job).encode())
    monkeypatch.setattr(supervisor, "follow", lambda _: 0)
    monkeypatch.setattr(direct_start, "open_and_follow", opened)
    request = Request(place, 1, ["0", "0"], place.run, Output(1), lambda: seen.append("run"))
    monkeypatch.setattr(request.out, "complain", lambda _: seen.append("refused"))
    supervisor.start(request)
    assert seen == [opener]
