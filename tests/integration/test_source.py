"""Sources as they are spooled at submit: directories, and git over its own transports."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from vmrunner import source
from vmrunner.errors import ConfigError
from vmrunner.source import GitSource


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on main, a tag on the first, a branch with a slash, one submodule entry."""
    path = tmp_path / "repository"
    path.mkdir()

    def git(*argv: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *argv], cwd=path, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    (path / "file").write_text("one")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    git("branch", "feature/slash")
    (path / "file").write_text("two")
    git("commit", "-qam", "two")
    return path


def content(path: Path) -> str:
    with tarfile.open(path) as tar:
        member = tar.extractfile("file")
        assert member is not None
        return member.read().decode()


@pytest.mark.parametrize(
    ("ref", "text"),
    [("", "two"), ("@main", "two"), ("@v1", "one"), ("@feature/slash", "one"), ("@short", "one")],
)
def test_a_git_revision_is_packed(repository: Path, tmp_path: Path, ref: str, text: str) -> None:
    if ref == "@short":
        log = ["git", "-C", repository, "log", "--format=%h", "v1"]
        ref = "@" + subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    total = source.spool(f"git+file://{repository}{ref}", tmp_path / "out.tar")
    assert content(tmp_path / "out.tar") == text
    assert total.size > 0
    assert (tmp_path / "out.tar").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("git+file://{repository}@nope", "has no 'nope'"),
        ("git+file://{repository}-missing@main", "cannot be fetched"),
        ("git+ext::sh -c touch% {repository}/evil@main", "source: "),
        ("git+-u./evil@main", "is not git"),
        ("git+https://host/x@--upload-pack=evil", "is not git"),
        ("git+", "is not git"),
        ("{repository}/missing", "does not exist"),
        ("{repository}/file", "is not a directory"),
    ],
)
def test_what_cannot_be_packed_is_said(
    repository: Path, tmp_path: Path, wish: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        source.spool(wish.format(repository=repository), tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()
    assert list(tmp_path.glob("*.part")) == []
    assert not (repository / "evil").exists()


@pytest.mark.parametrize(
    ("text", "url", "ref"),
    [
        ("git+https://host/a/b", "https://host/a/b", "HEAD"),
        ("git+https://host/a/b@v1.2", "https://host/a/b", "v1.2"),
        ("git+https://user:pw@host/a/b@main", "https://user:pw@host/a/b", "main"),
        ("git+ssh://git@host/a/b", "ssh://git@host/a/b", "HEAD"),
        ("git+ssh://git@host:22/a/b@x/y", "ssh://git@host:22/a/b", "x/y"),
        ("git+git@host:a/b", "git@host:a/b", "HEAD"),
        ("git+git@host:a/b@main", "git@host:a/b", "main"),
    ],
)
def test_a_git_url_and_its_ref(text: str, url: str, ref: str) -> None:
    assert GitSource.parse(text) == (url, ref)


def test_a_directory_is_packed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("text")
    assert source.spool(str(tmp_path / "in"), tmp_path / "out.tar").entries == 1
    assert content(tmp_path / "out.tar") == "text"
