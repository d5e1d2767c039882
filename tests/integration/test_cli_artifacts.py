"""Artifacts that cannot be copied to where the caller wants them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.command_line import Cli, script
from tests.support.scripted_app import wait_until


@pytest.fixture
def blocked(home: Path) -> Path:
    """A place where `dist/…` cannot be written, and all else can."""
    place = home / "came"
    place.mkdir()
    (place / "dist").write_text("a file is in the way")
    return place


def test_a_failed_build_stays_one_without_its_artifacts(cli: Cli, blocked: Path) -> None:
    lines = ("artifact dist/a.whl wheel", "artifact z/report.xml <x/>", "exit 3")
    done = cli("run", "-a", "**", "--artifacts-to", str(blocked), "-o", "json", *script(*lines))
    assert done.code == 3
    assert done.last[:3] == ("failure", "exit_code", "3")
    assert done.items[0]["exit_code"] == 3
    text = done.err.decode()
    assert "vmrunner: error: artifacts: 'dist/a.whl' cannot be copied to " in text
    assert f"(mend it, then: vmrunner artifacts get {done.last[3]} --to DIR)" in text
    assert (blocked / "z/report.xml").read_text() == "<x/>", "the others come all the same"


def test_a_success_without_its_artifacts_is_a_failure_outside(
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


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--artifacts-to", "file/sub"), "artifacts-to: 'file/sub' cannot be written"),
        (("--artifacts-to", "/proc/x"), "artifacts-to: '/proc/x' cannot be written"),
        (("--artifacts-to", "link"), "'link' is a link, and none is followed"),
        (("--artifacts-to", "a" * 300), "cannot be written: File name too long"),
        (("--result-file", "-"), "result-file: '-' is no file (-o json prints it on stdout)"),
        (("--result-file", "/proc/x"), "result-file: '/proc/x' cannot be written"),
        (("--result-file", "/dev/fd/nope"), "result-file: '/dev/fd/nope' is no file"),
        (("--result-file", "link"), "result-file: 'link' is no file"),
        (("--result-file", "link/r.json"), "'link' is a link, and none is followed"),
        (("--result-file", "nope/r.json"), "'nope/r.json' cannot be written: No such file"),
        (("--result-file", "b" * 300), "cannot be written: File name too long"),
        (("-a", "a{b,c}"), "artifact: 'a{b,c}' would match nothing"),
        (("-a", "[a"), "artifact: '[a' would match nothing"),
    ],
)
def test_a_place_that_cannot_take_it_is_refused_beforehand(
    cli: Cli, home: Path, argv: Sequence[str], message: str
) -> None:
    (home / "file").touch()
    (home / "link").symlink_to(home)
    done = cli("run", *argv, *script("exit 0"))
    assert (done.code, cli("ps", "-a", "-o", "json").items) == (125, [])
    assert message in done.err.decode()


def test_looking_at_a_place_leaves_nothing_there(cli: Cli, home: Path) -> None:
    before = sorted(home.iterdir())
    argv = ("--artifacts-to", "new/deep", "--result-file", "r.json", "--dry-run")
    done = cli("run", *argv, *script("exit 0"))
    assert done.code == 0
    assert b"warning: artifacts-to: no artifact is asked for" in done.err
    assert {p.name for p in set(home.iterdir()) - set(before)} <= {"script.yml", "data", "cache"}


def test_a_result_that_cannot_be_written_is_an_error(cli: Cli, home: Path) -> None:
    """What lies there is an older build's, and would be read as this one's."""
    place = home / "results"
    place.mkdir()
    (place / "r.json").write_text("old")
    lines = (f"artifact x.txt {'y' * 10}", "until gone")

    def remove() -> None:
        wait_until(lambda: list((home / "data").rglob("x.txt")), what="the build to run")
        place.rename(home / "away")
        Path("gone").touch()

    remover = threading.Thread(target=remove)
    remover.start()
    done = cli("run", "--result-file", str(place / "r.json"), *script(*lines))
    remover.join()
    assert done.code == 125, "not 0: the caller has no result"
    assert done.last[:3] == ("success", "exit_code", "0")
    assert b"error: result-file: " in done.err
    assert (home / "away" / "r.json").read_text() == "old"


def test_a_result_goes_through_no_link_that_was_planted(cli: Cli, home: Path) -> None:
    (home / "victim").write_text("mine")
    (home / "r.json").symlink_to(home / "victim")
    done = cli("run", "--result-file", "r.json", *script("exit 3"))
    assert done.code == 3
    assert (home / "victim").read_text() == "mine"
    assert json.loads((home / "r.json").read_text())["items"][0]["exit_code"] == 3
    assert not list(home.glob(".vmrunner-*"))


def test_get_takes_directories_and_globs_and_says_where_they_are(cli: Cli, home: Path) -> None:
    lines = ("artifact dist/a.whl wheel", "artifact dist/b.whl b", "artifact z.txt z")
    build = cli("run", "-a", "**", *script(*lines)).last[3]
    for word in ("dist/", "dist", "*/*.whl"):
        got = cli("artifacts", "get", build, word, "--to", "here")
        assert got.out.decode().split() == ["here/dist/a.whl", "here/dist/b.whl"]
        assert got.err == b"vmrunner: 2 artifacts in here\n"
    got = cli("artifacts", "get", build, "z.txt")
    assert (got.out, got.err) == (b"z.txt\n", f"vmrunner: 1 artifact in {home}\n".encode())
    assert cli("artifacts", "get", build, "dist", "--to", "-").code == 2
    none = cli("run", *script("exit 0")).last[3]
    got = cli("artifacts", "get", none)
    assert (got.code, got.out, got.err) == (0, b"", b"vmrunner: no artifact came back\n")
