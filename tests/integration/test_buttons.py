"""What in a cloud's image obeys the power and the sleep button: the program that is put there, with
pipes in place of input devices."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.stand_ins import until

SCRIPT: Final = Path(__file__).parents[2] / "packer/provision/65-buttons.sh"
POWER, SLEEP, LETTER = 116, 142, 30  # linux/input-event-codes.h


def program() -> str:
    found = re.search(r"<<'PY'\n(.*?)\nPY\n", SCRIPT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def event(kind: int, code: int, value: int) -> bytes:
    return struct.pack("llHHi", 0, 0, kind, code, value)


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (POWER, "systemctl poweroff"),
        (SLEEP, "sh -c sync && echo mem >/sys/power/state"),
        (205, "sh -c sync && echo mem >/sys/power/state"),
        (LETTER, ""),
    ],
)
def test_a_button_is_obeyed_once(tmp_path: Path, code: int, command: str) -> None:
    """Its release and its repetition are no further press; other keys are none of its business."""
    log = tmp_path / "log"
    for name in ("systemctl", "sh"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/dash\necho "{name} $*" >>{log}\n')
        stub.chmod(0o755)
    pipes = [tmp_path / "event0", tmp_path / "event1"]
    for pipe in pipes:
        os.mkfifo(pipe)
    words = [sys.executable, "-c", program(), *map(str, pipes)]
    with subprocess.Popen(words, env={"PATH": str(tmp_path)}, stdout=subprocess.DEVNULL) as child:
        first, second = (pipe.open("wb", buffering=0) for pipe in pipes)
        first.write(event(0, 0, 0) + event(1, LETTER, 1))
        first.close()  # a device that goes leaves the others
        second.write(event(1, code, 1) + event(1, code, 2) + event(1, code, 0) + event(0, 0, 0))
        second.close()
        until(lambda: child.poll() is not None)
        assert child.returncode == 0
    assert (log.read_text() if log.exists() else "") == (f"{command}\n" if command else "")


def test_only_clouds_that_press_them_have_it(tmp_path: Path) -> None:
    for platform in ("local", "azure", ""):
        environment = {"PATH": str(tmp_path), "VMRUNNER_PLATFORM": platform}
        subprocess.run(["/bin/sh", str(SCRIPT)], env=environment, check=True)


def test_it_holds_back_nothing_that_a_build_waits_for() -> None:
    text = SCRIPT.read_text()
    assert "After=ssh.service multi-user.target" in text
    assert "Type=exec" in text


def test_a_button_pressed_twice_is_obeyed_once(tmp_path: Path) -> None:
    """While it falls asleep; else it would sleep again as soon as it is woken."""
    log, pipe, asleep = tmp_path / "log", tmp_path / "event0", tmp_path / "asleep"
    (tmp_path / "sh").write_text(
        f"#!/bin/dash\necho slept >>{log}\n[ -e {asleep} ] && exit\n"  # a second sleep is told
        f": >{asleep}\nread -r _ <{tmp_path}/wake\n"
    )
    (tmp_path / "sh").chmod(0o755)
    for fifo in (pipe, tmp_path / "wake"):
        os.mkfifo(fifo)
    words = [sys.executable, "-c", program(), str(pipe)]
    with subprocess.Popen(words, env={"PATH": str(tmp_path)}, stdout=subprocess.DEVNULL) as child:
        with pipe.open("wb", buffering=0) as device:
            device.write(event(1, SLEEP, 1))
            until(asleep.exists)
            device.write(event(1, SLEEP, 1) + event(1, SLEEP, 0) + event(1, SLEEP, 1))
            with (tmp_path / "wake").open("w") as wake:
                wake.write("\n")
        until(lambda: child.poll() is not None)
    assert log.read_text() == "slept\n"
