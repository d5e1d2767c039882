"""Copies of artifacts: where they go, what they replace, and what they never walk through."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmrunner.cli.artifact_destination import CopyProgress
from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.services.artifacts import Artifacts
from vmrunner.store.build_artifacts import LocalArtifacts


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a checkout that nobody has read."""
    place = tmp_path / "checkout"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "b-1"
    (place / "dist").mkdir(parents=True)
    (place / "dist" / "a.whl").write_text("wheel")
    (place / "dist" / "b.whl").write_text("wheel b")
    (place / "report.xml").write_text("<x/>")
    (place / "report.xml").chmod(0o640)
    (place / "latest").symlink_to("dist")
    return place


def artifacts(place: Path, globs: tuple[str, ...] = ()) -> Artifacts:
    return Artifacts(lambda: LocalArtifacts(place), place.name, globs)


def inside(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def names(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]


def test_all_come_as_they_are(here: Path, store: Path) -> None:
    copied = artifacts(store).download("to/there")
    assert names(copied) == [
        f"to/there/{n}" for n in ("dist/a.whl", "dist/b.whl", "latest", "report.xml")
    ]
    assert (here / "to/there/latest").readlink() == Path("dist")
    was, is_ = (place / "report.xml" for place in (store, here / "to/there"))
    assert is_.stat().st_mode == was.stat().st_mode
    assert int(is_.stat().st_mtime) == int(was.stat().st_mtime)
    assert sorted(p.name for p in (here / "to/there").iterdir()) == ["dist", "latest", "report.xml"]


@pytest.mark.parametrize("word", ["dist", "dist/", "dist/*", "**/*.whl"])
def test_a_directory_or_a_glob_names_many(here: Path, store: Path, word: str) -> None:
    assert names(artifacts(store).download(".", word)) == ["dist/a.whl", "dist/b.whl"]
    with pytest.raises(NotFound, match=r"no artifact 'dust/'.*there: dist/a.whl"):
        artifacts(store).download(".", "dust/")


def test_they_can_be_walked_and_counted(store: Path) -> None:
    assert [a.path for a in artifacts(store)][:1] == ["dist/a.whl"]
    assert len(artifacts(store)) == 4
    assert not artifacts(store / "nothing")


def test_no_link_below_the_destination_is_followed(here: Path, store: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("mine")
    (here / "out").mkdir()
    (here / "out" / "dist").symlink_to(home)
    (here / "out" / "report.xml").symlink_to(home / "secret")
    with pytest.raises(VmrunnerError, match=r"'dist/a.whl' cannot.*'dist' is a link.*and 1 more"):
        artifacts(store).download("out")
    assert inside(home) == ["secret"]
    assert (home / "secret").read_text() == "mine"
    assert not (here / "out" / "report.xml").is_symlink(), "replaced, not written through"
    assert (here / "out" / "report.xml").read_text() == "<x/>"


def test_a_relative_destination_is_reached_through_no_link(
    here: Path, store: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (here / "out").symlink_to(home)
    for dest in ("out", "out/below", "sub/../out"):
        with pytest.raises(VmrunnerError, match=r"'.*out' is a link"):
            artifacts(store).download(dest)
    assert inside(home) == []
    artifacts(store).download(here / "out", "report.xml")  # whoever names it whole means it
    assert inside(home) == ["report.xml"]
    artifacts(store).download("../beside", "report.xml")
    assert inside(tmp_path / "beside") == ["report.xml"]


def test_a_link_of_one_build_leads_the_next_nowhere(here: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "b-2", tmp_path / "b-3"
    first.mkdir()
    (second / "dist").mkdir(parents=True)
    (here / "hooks").mkdir()
    (first / "dist").symlink_to("hooks")
    (second / "dist" / "post-commit").write_text("evil")
    artifacts(first).download(".")
    with pytest.raises(VmrunnerError, match="'dist' is a link"):
        artifacts(second).download(".")
    assert inside(here / "hooks") == []


def test_special_files_and_gits_own_are_left_out_and_told(
    here: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(store / "fifo")
    (store / ".git" / "hooks").mkdir(parents=True)
    (store / ".git" / "hooks" / "post-commit").write_text("evil")
    (store / "hooks").symlink_to(".git/hooks")
    with caplog.at_level(logging.WARNING, "vmrunner"):
        assert len(artifacts(store).download(".")) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "artifacts: '.git' is git's own: left out",
        "artifacts: 'fifo' is no file: left out",
    ]
    assert not (here / ".git").exists()
    wanted = artifacts(store, (".git/hooks/*", "hooks"))
    assert names(wanted.download("to", "hooks", ".git/")) == [
        "to/.git/hooks/post-commit",
        "to/hooks",
    ]


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow past 100 bytes: a full disk, as far as a copy can tell. Also no log that the
    tests' own report goes to: it is over before that."""
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)


def test_what_cannot_be_written_whole_leaves_what_was_there(here: Path, store: Path) -> None:
    (store / "dist" / "a.whl").write_bytes(bytes(1000))
    (here / "dist").mkdir()
    (here / "dist" / "a.whl").write_text("old")
    with (
        pytest.raises(VmrunnerError, match=f"'dist/a.whl'.*{os.strerror(errno.EFBIG)}"),
        small_files(),
    ):
        artifacts(store).download(".")
    assert (here / "dist" / "a.whl").read_text() == "old"
    assert inside(here / "dist") == ["a.whl", "b.whl"], "nothing half is left"
    assert (here / "report.xml").read_text() == "<x/>", "the others come"


def test_a_directory_in_the_way_stays(here: Path, store: Path) -> None:
    (here / "report.xml").mkdir()
    with pytest.raises(VmrunnerError, match=r"'report.xml' cannot be copied"):
        artifacts(store).download(".")
    assert inside(here / "report.xml") == []
    shutil.rmtree(here / "report.xml")
    assert len(artifacts(store).download(".")) == 4


def test_each_piece_that_came_is_counted(here: Path, store: Path) -> None:
    came: list[int] = []
    copied = artifacts(store).download("to", on_bytes=came.append)
    files = [here / path for path in copied if not (here / path).is_symlink()]
    assert sum(came) == sum(file.stat().st_size for file in files)
    assert sum(came) > 0


def test_a_long_copy_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = CopyProgress(clock=lambda: now[0])
    for _ in range(12):
        now[0] += 1
        progress.add(1 << 20)
    assert capsys.readouterr().err.splitlines() == [
        "vmrunner: artifacts: 5.0 MiB are copied so far",
        "vmrunner: artifacts: 10.0 MiB are copied so far",
    ]


def test_a_long_copy_of_all_says_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = CopyProgress(total=40 << 20, clock=lambda: now[0])
    for size in (8 << 20, 24 << 20, 9 << 20):  # more than was told: the store is another by now
        now[0] += 6
        progress.add(size)
    assert capsys.readouterr().err.splitlines() == [
        "vmrunner: artifacts: 8.0 MiB of 40.0 MiB are copied, about 24s left",
        "vmrunner: artifacts: 32.0 MiB of 40.0 MiB are copied, about 3.0s left",
        "vmrunner: artifacts: 41.0 MiB are copied so far",
    ]
