"""What a process that waits does ahead of its build leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmrunner.guest import supervisor, warm_up
from vmrunner.guest.socket_answers import open_files
from vmrunner.guest.state import EventLog, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    return place


def _stdin() -> Path:
    return Path("/proc/self/fd/0").readlink()


def _files(place: Place) -> list[str]:
    return sorted(str(path) for path in Path(place.run).rglob("*"))


def test_a_rehearsal_leaves_no_file_and_no_descriptor(place: Place) -> None:
    before = _files(place), open_files(), _stdin()
    warm_up.rehearse(place, supervisor.obey)
    assert (_files(place), open_files(), _stdin()) == before
    assert not place.job()
    assert not place.was_started()
    assert not Path(place.events).exists()


def test_a_rehearsal_goes_as_far_as_a_first_line(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_up.shutil, "rmtree", lambda *_, **__: None)
    warm_up.rehearse(place, supervisor.obey)
    scratch = Place(f"{place.run}/rehearsal-{os.getpid()}")
    kinds = [event["kind"] for event in EventLog(scratch.events).past]
    assert kinds == ["container", "step_started", "ended"]
    assert Path(scratch.log).read_bytes() == b"\n"


def test_a_full_disk_costs_the_rehearsal_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(warm_up, "fill_box", full)
    before = _files(place)
    warm_up.rehearse(place, supervisor.obey)
    assert "no rehearsal: OSError: [Errno 28] No space left on device" in capsys.readouterr().err
    assert _files(place) == before


def test_an_order_that_fails_costs_the_rehearsal_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that died of it would take a connection with it that it was given meanwhile."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(supervisor, "prepare", full)
    before = _files(place), open_files(), _stdin()
    warm_up.rehearse(place, supervisor.obey)
    assert "no rehearsal: " in capsys.readouterr().err
    assert (_files(place), open_files(), _stdin()) == before
