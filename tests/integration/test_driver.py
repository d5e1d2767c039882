"""The container's main process by itself: what it says, and what it takes for an answer."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sshd import wait_for
from vmrunner.guest.container_files import fill_box
from vmrunner.guest.prestart import REHEARSAL
from vmrunner.guest.state import Place
from vmrunner.guest.warm_up import JOB

pytestmark = pytest.mark.timeout(60)
SEES = 'echo "$0 $# [${here-}${answer-}${step-}]"; ls /proc/$$/fd; ! command -v tell; false; echo x'


class Driver:
    """It, and the supervisor's ends of its FIFOs."""

    def __init__(self, place: Place) -> None:
        self.box = Path(place.box)
        self._fds = {name: place.fifo(name) for name in ("control", "answers", "log")}
        self.process = subprocess.Popen(["/bin/sh", f"{place.box}/driver.sh"])

    def next_message(self) -> bytes:
        """Return what it says next; nothing if it left."""
        control = self._fds["control"]
        wait_for(lambda: select.select([control], [], [], 0)[0] or self.process.poll() is not None)
        return os.read(control, 4096) if select.select([control], [], [], 0)[0] else b""

    def answer(self, words: bytes) -> None:
        os.write(self._fds["answers"], words)

    def log(self) -> bytes:
        return os.read(self._fds["log"], 1 << 16)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for fd in self._fds.values():
            os.close(fd)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    fill_box(place, {**JOB, "steps": []})
    driver = Driver(place)
    assert driver.next_message() == b"ready\n"
    yield driver
    driver.close()


def give(driver: Driver, script: str) -> None:
    """Lay out a step, and let it begin."""
    (driver.box / "0.env").touch()
    (driver.box / "0.sh").write_text(script)
    driver.answer(b"start 0\n")


def test_leave_to_begin_is_no_answer_to_a_steps_end(driver: Driver) -> None:
    """It may come twice. Caches are packed before that answer."""
    give(driver, "true\n")
    driver.answer(b"start 0\n")
    assert driver.next_message() == b"end 0 0\n"
    driver.answer(b"again\n")
    assert driver.next_message() == b"end 0 0\n"
    driver.answer(b"end 0 0\n")
    assert driver.process.wait() == 0


def test_a_step_sees_nothing_of_the_driver(driver: Driver) -> None:
    give(driver, SEES)
    assert driver.next_message() == b"end 0 1\n"
    shell, *files = driver.log().decode().splitlines()
    assert shell == f"{driver.box}/0.sh 0 []"
    assert not {"3", "4"} & set(files)
    assert "x" not in files


def test_a_rehearsal_leaves_a_step_no_job(driver: Driver) -> None:
    """A shell may wait for the next one of its own that ends."""
    (driver.box / "commands/rehearsal").mkdir(parents=True)
    (driver.box / "commands/rehearsal/run.sh").write_text(REHEARSAL)
    (driver.box / "env").touch()
    driver.answer(b"command rehearsal\n")
    assert driver.next_message() == b"ready\n"
    give(driver, 'echo "[$!]"\n')
    assert driver.next_message() == b"end 0 0\n"
    assert driver.log() == b"[]\n"


def test_what_waits_ends_when_it_is_told_to(driver: Driver) -> None:
    driver.answer(b"stop\n")
    assert driver.process.wait() == 143
