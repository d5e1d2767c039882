"""What a work directory may hold beside files, and an archive that is not what was asked for."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.support.session_world import World
from vmrunner.model import ArtifactRule, Reason, Result
from vmrunner.session import supervisor_calls

pytestmark = pytest.mark.timeout(120)

SOCKET = "import socket; socket.socket(socket.AF_UNIX).bind('out/sock')"


def test_what_is_no_file_is_told_and_costs_no_success(world: World) -> None:
    verdict = world.run(
        "mkdir -p out/venv out/.git; echo good >out/zgood; mkfifo out/fifo; touch out/.git/x",
        f'python3 -c "{SOCKET}"',
        "ln -s /usr/bin/python3 out/venv/python",
        rules=[ArtifactRule(glob="out/*")],
    )
    assert (verdict.result, verdict.reason) == (Result.SUCCESS, Reason.EXIT_CODE)
    assert verdict.message == "artifacts: 'out/.git' is git's own (and 3 more): left out"
    assert [p.name for p in world.artifacts.rglob("*") if p.is_file()] == ["zgood"]
    told = [data["message"] for kind, data in world.record.events if kind == "artifact_omitted"]
    assert sorted(told) == [
        "'out/.git' is git's own",
        "'out/fifo' is a FIFO",
        "'out/sock' is a socket",
        "the link 'out/venv/python' leads outside",
    ]
    assert ("artifacts", {"count": 2, "bytes": 5}) in world.record.events


def test_root_in_the_vm_sends_nothing_not_asked_for(world: World, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("./dist/ok"))
        tar.addfile(tarfile.TarInfo("./.envrc"))
    (tmp_path / "evil.tar").write_bytes(buffer.getvalue())
    liar = tmp_path / "liar"
    liar.write_text(
        f'#!/bin/sh\n[ $1 = collect ] || exec {world.guest.supervisor} "$@"\n'
        f"echo '[1]'; cat {tmp_path}/evil.tar\n"
    )
    liar.chmod(0o755)
    world.guest.supervisor = str(liar)
    supervisor_calls.SUPERVISOR = str(liar)  # type: ignore[misc]  # the fixture puts it back
    verdict = world.run("true", rules=[ArtifactRule(glob="dist/*")])
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert verdict.message == "archive: '.envrc' is nothing that was asked for"
    assert not (world.artifacts / ".envrc").exists()
