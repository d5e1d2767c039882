"""What is told of an image that is being made, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vmrunner.cli.commands import image_template
from vmrunner.cli.image_progress import USUAL, ImageProgress, RemainingTime
from vmrunner.cli.last_times import FILE
from vmrunner.images import Progress

PLAN = (("root", "debian:trixie"), ("disk",), ("image",))
TIMES = {"root": 60.0, "debian:trixie": 40.0, "disk": 8.0, "image": 6.0}


def event(stage: str, fraction: float, seconds: float, **more: Any) -> Progress:
    return Progress(stage=stage, fraction=fraction, seconds=seconds, **more)


def test_the_rest_is_the_longest_of_each_group() -> None:
    now = [0.0]
    remaining = RemainingTime(PLAN, TIMES.__getitem__, clock=lambda: now[0])
    assert remaining.seconds == 60 + 8 + 6
    remaining.note(event("root", 0.0, 0.0))
    remaining.note(event("debian:trixie", 0.0, 0.0))
    now[0] = 30.0
    assert remaining.seconds == 30 + 8 + 6
    remaining.note(event("root", 1.0, 30.0))
    assert remaining.seconds == 10 + 8 + 6
    remaining.note(event("debian:trixie", 1.0, 30.0))
    remaining.note(event("disk", 1.0, 8.0))
    remaining.note(event("image", 1.0, 6.0))
    assert remaining.seconds == 0


def test_a_machine_slower_than_the_last_time_is_believed() -> None:
    now = [200.0]
    remaining = RemainingTime((("root",),), lambda _: 60.0, clock=lambda: now[0])
    remaining.note(event("root", 0.25, 100.0))
    assert remaining.seconds == 300
    now[0] = 210.0
    assert remaining.seconds > 300


def test_a_stage_past_its_time_is_not_done() -> None:
    remaining = RemainingTime((("root",),), lambda _: 60.0, clock=lambda: 1000.0)
    remaining.note(event("root", 0.0, 500.0))
    assert remaining.seconds > 0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "vmrunner").mkdir()
    return tmp_path / "vmrunner"


def play(progress: ImageProgress) -> None:
    with progress:
        progress(event("plan", 0.0, 0.0, plan=PLAN))
        for stage, seconds in TIMES.items():
            progress(event(stage, 0.0, 0.0))
            progress(event(stage, 0.5, seconds / 2, message="half way"))
            progress(event(stage, 1.0, seconds))


def test_what_comes_after_the_image_is_in_its_time(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    play(ImageProgress(later={"templates": 300.0}))
    plan, *stages = capfd.readouterr().err.splitlines()
    assert "then image, then templates: about 6m" in plan
    assert stages[-1] == "vmrunner: image: image took 6.0s, about 5m00s left"


def test_both_templates_take_what_one_took_last(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell: Any = None
    monkeypatch.setattr(image_template, "_have_defaults", lambda _: True)
    assert image_template.to_come(shell) == {"templates": 55.0}
    steps = {"template: boot": 20.0, "template: clone": 5.5, "image: root": 60.0}
    (cache / FILE).write_text(json.dumps(steps))
    assert image_template.to_come(shell) == {"templates": 51.0}
    monkeypatch.setattr(image_template, "_have_defaults", lambda _: False)
    assert image_template.to_come(shell) == {}


def test_without_a_terminal_each_stage_has_a_line(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    play(ImageProgress("the image is not there"))
    first, plan, *stages = capfd.readouterr().err.splitlines()
    assert first == "vmrunner: the image is not there: it is made now"
    usual = USUAL["root"] + USUAL["disk"] + USUAL["image"]
    assert plan.startswith("vmrunner: image: root and debian:trixie, then disk, then image: about ")
    assert plan.endswith(f"about 1m{usual - 59:.0f}s left")
    assert [line.partition(", about")[0] for line in stages] == [
        "vmrunner: image: root took 1m00s",
        "vmrunner: image: debian:trixie took 40s",
        "vmrunner: image: disk took 8.0s",
        "vmrunner: image: image took 6.0s",
    ]
    assert "about" not in stages[-1]
    kept = json.loads((cache / FILE).read_text())
    assert kept == {f"image: {stage}": seconds for stage, seconds in TIMES.items()}


def test_the_next_time_is_told_of_the_last(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (cache / FILE).write_text(json.dumps({"image: root": 600.0}))
    play(ImageProgress())
    assert "then image: about 10m15s left" in capfd.readouterr().err


def test_on_a_terminal_one_bar_is_of_the_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        """A terminal that keeps what is written."""

        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    play(ImageProgress())
    shown = screen.getvalue()
    assert all(stage in shown for stage in ("all", *TIMES))
    assert "left" in shown
