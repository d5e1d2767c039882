"""What `ssh --container` has done in the VM, with a docker that only says what it was asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vmrunner.core.boxes import DOCKER

PROGRAM = """#!/bin/sh
case $1 in
  inspect) echo "$STATUS"; exit "${INSPECTED:-0}" ;;
  *) printf '<%s>' "$@"; exit 7 ;;
esac
"""


def entered(tmp_path: Path, *command: str, status: str, terminal: str = "", **env: str) -> str:
    docker = tmp_path / "docker"
    docker.write_text(PROGRAM)
    docker.chmod(0o755)
    words = DOCKER.inside(list(command), held=False, terminal=terminal)
    done = subprocess.run(
        words,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "STATUS": status, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.returncode} {done.stdout}{done.stderr}".strip()


def test_each_word_arrives_with_the_builds_environment(tmp_path: Path) -> None:
    output = entered(tmp_path, "printf", "a  b", "it's $x", "", status="running")
    assert output == (
        '7 <exec><-i><-w></work><vmrunner-build><sh><-c><. /vmrunner/env; exec "$@"><sh>'
        "<printf><a  b><it's $x><>"
    )
    shell = entered(tmp_path, status="running", terminal="t1")
    assert shell.startswith("7 <exec><-i><-t><-e><VMRUNNER_TERMINAL=t1><-w>")
    assert shell.endswith("exec bash; exec sh>")


@pytest.mark.parametrize("status", ["created", "exited", "dead"])
def test_a_container_that_does_not_run_is_told(tmp_path: Path, status: str) -> None:
    """One that was made and not started yet is not started behind the supervisor's back."""
    output = entered(tmp_path, "true", status=status)
    assert output == f"125 vmrunner: the build's container is {status}"


def test_a_container_that_is_not_there_is_told(tmp_path: Path) -> None:
    output = entered(tmp_path, "true", status="", INSPECTED="1")
    assert output == "125 vmrunner: the build's container is absent"
