"""Artifacts that cannot be copied to where the caller wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commandline import Cli


def script(*lines: str) -> Sequence[str]:
    Path("script.yml").write_text(json.dumps({"jobs": {"j": {"steps": ["\n".join(lines)]}}}))
    return ("-f", "script.yml", "j")


@pytest.fixture
def blocked(home: Path) -> Path:
    """A place where `dist/…` cannot be written, and all else can."""
    place = home / "came"
    place.mkdir()
    (place / "dist").write_text("a file is in the way")
    return place


def test_a_failed_build_stays_one_when_its_artifacts_cannot_be_copied(
    cli: Cli, blocked: Path
) -> None:
    lines = ("artifact dist/a.whl wheel", "artifact z/report.xml <x/>", "exit 3")
    done = cli("run", "-a", "**", "--artifacts-to", str(blocked), "-o", "json", *script(*lines))
    assert done.code == 3
    assert done.last[:3] == ("failure", "exit_code", "3")
    assert done.items[0]["exit_code"] == 3
    text = done.err.decode()
    assert "vmrunner: error: artifacts: 'dist/a.whl' cannot be copied to " in text
    assert f"(mend it, then: vmrunner artifacts get {done.last[3]} --to DIR)" in text
    assert (blocked / "z/report.xml").read_text() == "<x/>", "the others come all the same"


def test_a_success_whose_artifacts_cannot_be_copied_is_none_for_the_caller(
    cli: Cli, blocked: Path, home: Path
) -> None:
    lines = ("artifact dist/a.whl wheel", "artifact b.txt b")
    argv = ("--artifacts-to", str(blocked), "--result-file", "r.json")
    done = cli("run", "-a", "**", *argv, *script(*lines))
    assert done.code == 125, "not 0: the caller has no artifacts"
    assert done.last[:3] == ("success", "exit_code", "0"), "and not the build's failure"
    assert b"'dist/a.whl' cannot be copied" in done.err
    assert b"1 artifact in " not in done.err
    assert json.loads((home / "r.json").read_text())["items"][0]["result"] == "success"
    watched = cli("watch", done.last[3], "--artifacts-to", str(blocked))
    assert (watched.code, watched.last) == (125, done.last)
    got = cli("artifacts", "get", done.last[3], "--to", str(blocked))
    assert got.code == 1
    assert b"'dist/a.whl' cannot be copied" in got.err
    (blocked / "dist").unlink()
    assert cli("watch", done.last[3], "--artifacts-to", str(blocked)).code == 0
