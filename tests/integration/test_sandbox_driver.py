"""The driver's part in a sandbox, where its container has as many processes as it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmrunner.guest import command_group

pytestmark = pytest.mark.timeout(60)
SCRIPT = Path(command_group.__file__).with_name("sandbox.sh")
USER = 54321


@pytest.fixture
def box() -> Iterator[Path]:
    """Where an ordinary user can read it: root may always fork."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        box = Path(path)
        box.chmod(0o755)
        shutil.copy(SCRIPT, box / "driver")
        (box / "sandbox").write_text("echo again; exit 3\n")  # what begins in its place
        (box / "commands/c1").mkdir(parents=True)
        (box / "commands/c1/run.sh").write_text("echo never\n")
        yield box


@pytest.mark.parametrize(
    ("answer", "code", "output"), [("command c1", 3, "again\n"), ("stop", 143, "")]
)
def test_a_fork_that_fails_ends_no_sandbox(answer: str, code: int, output: str, box: Path) -> None:
    user = {"user": USER, "group": USER} if os.geteuid() == 0 else {}
    line = f'ulimit -p 1 2>/dev/null || ulimit -u 1; exec 4<&0; exec /bin/sh "{box}/driver"'
    done = subprocess.run(
        ["sh", "-c", line], input=f"{answer}\n", capture_output=True, text=True, check=False, **user
    )  # type: ignore[call-overload]
    assert (done.returncode, done.stdout) == (code, output), done.stderr


@pytest.mark.parametrize(("most", "is_full"), [("4096", True), ("4097", False), ("max", False)])
def test_a_container_without_a_process_left_is_told(
    most: str, is_full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_group, "ROOT", str(tmp_path))
    group = Path(command_group.group_of(os.getpid()))
    group.mkdir(parents=True, exist_ok=True)
    (group / "pids.max").write_text(f"{most}\n")
    (group / "pids.current").write_text("4096\n")
    assert command_group.is_full(os.getpid()) is is_full
    (group / "pids.max").unlink()
    assert not command_group.is_full(os.getpid())
