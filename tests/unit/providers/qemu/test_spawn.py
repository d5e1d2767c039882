"""How a keeper's answer is awaited."""

from __future__ import annotations

from pathlib import Path

from tests.support.descriptors import many_open
from vmrunner.providers.qemu import spawn


def test_a_process_with_many_files_open_hears_its_keeper(tmp_path: Path) -> None:
    """A serve with hundreds of sessions: the pipe's number is past what select(2) can hold."""
    directory = tmp_path / "vms" / "vm-1"
    directory.mkdir(parents=True)
    with many_open():
        answer = spawn._run(directory, "mark")
    assert answer == "error plan.json is gone or cut"
