"""How a keeper's answer is awaited."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.descriptors import many_open
from vmrunner.providers.qemu import keeper, keeper_process


def test_a_process_with_many_files_open_hears_its_keeper(tmp_path: Path) -> None:
    """A serve with hundreds of sessions: the pipe's number is past what select(2) can hold."""
    directory = tmp_path / "vms" / "vm-1"
    directory.mkdir(parents=True)
    with many_open():
        answer = keeper_process._run(directory, "mark")
    assert answer == "error plan.json is gone or cut"


def test_a_keeper_is_awaited_while_it_resumes_and_then_boots() -> None:
    parts = 2 * keeper._START + keeper._RESUME + keeper._OVERLAY
    assert parts < keeper_process._START_TIMEOUT


def test_a_keeper_whose_creator_went_goes_on() -> None:
    code = "from vmrunner.providers.qemu import keeper as k; k.answer('running'); k.detach()"
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen([sys.executable, "-c", code], stdout=writing) as process:
        os.close(writing)
    assert process.returncode == 0
