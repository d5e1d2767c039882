"""The example of a service, as far as it needs no VM."""

from __future__ import annotations

import subprocess
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples/service"


def test_down_leaves_a_foreign_directory_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.touch()
    done = subprocess.run(
        [EXAMPLE / "down", tmp_path], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, theirs.exists()) == (1, True)
    assert "was not made by up" in done.stderr
