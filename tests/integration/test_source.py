"""Sources as they are spooled at submit: directories, and git over its own transports."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import random
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmrunner.errors import ConfigError
from vmrunner.services import sources
from vmrunner.services.sources import GitSource


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
    total = sources.spool(f"git+file://{repository}{ref}", tmp_path / "out.tar")
    assert content(tmp_path / "out.tar") == text
    assert total.size > 0
    assert (tmp_path / "out.tar").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("source", "message"),
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
    repository: Path, tmp_path: Path, source: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sources.spool(source.format(repository=repository), tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()
    assert list(tmp_path.glob("*.part")) == []
    assert not (repository / "evil").exists()


@pytest.mark.parametrize(
    ("text", "url", "ref"),
    [
        ("git+https://host/a/b", "https://host/a/b", "HEAD"),
        ("git+https://host/a/b@v1.2", "https://host/a/b", "v1.2"),
        ("git+https://user:pw@host/a/b@main", "https://host/a/b", "main"),
        ("git+https://token@host:1/a@x/y", "https://host:1/a", "x/y"),
        ("git+https://user:p@w@host/a@main", "https://host/a", "main"),
        ("git+ssh://git@host/a/b", "ssh://git@host/a/b", "HEAD"),
        ("git+ssh://git:pw@host/a/b", "ssh://git@host/a/b", "HEAD"),
        ("git+ssh://git@host:22/a/b@x/y", "ssh://git@host:22/a/b", "x/y"),
        ("git+git@host:a/b", "git@host:a/b", "HEAD"),
        ("git+git@host:a/b@main", "git@host:a/b", "main"),
    ],
)
def test_a_git_url_and_its_ref(text: str, url: str, ref: str) -> None:
    found = GitSource.parse(text)
    assert (found.url, found.ref) == (url, ref)
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("git+https://user:hunter2@host/a@main", "git+https://host/a@main"),
        ("git+https://hunter2@host/a", "git+https://host/a"),
        ("git+https://user:hunter2@host", "git+https://host"),
        ("git+https://user:hun@ter2@host/a", "git+https://host/a"),
        ("git+ssh://git:hunter2@host/a@main", "git+ssh://git@host/a@main"),
        ("git+git@host:a/b@main", "git+git@host:a/b@main"),
        ("https://user:pw@host/a", "https://user:pw@host/a"),  # a directory's name
    ],
)
def test_what_is_told_of_a_source_holds_no_password(text: str, message: str) -> None:
    assert sources.shown(text) == message


@pytest.mark.parametrize("place", ["", "/a@--evil", "/a\n@main"])
def test_no_complaint_tells_a_password(place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sources.check(f"git+https://user:hunter2@host{place}")
    assert "hunter2" not in str(caught.value)


def state(repository: Path) -> tuple[str, str]:
    refs = ["git", "-C", repository, "for-each-ref"]
    text = subprocess.run(refs, capture_output=True, text=True, check=True).stdout
    return text, (repository / ".git" / "config").read_text()


@pytest.mark.parametrize("ref", ["@main", "@short"])
def test_the_repository_of_a_hook_stays_as_it_is(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str
) -> None:
    """In a hook git says by GIT_DIR where it is: that is not where we may work."""
    mine = tmp_path / "mine"
    subprocess.run(["git", "clone", "-q", repository, mine], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    commit = ["commit", "-q", "--allow-empty", "-m", "mine"]
    subprocess.run(["git", "-C", mine, *identity, *commit], check=True)
    before = state(mine)
    if ref == "@short":
        log = ["git", "-C", repository, "log", "--format=%h", "v1"]
        ref = "@" + subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    with monkeypatch.context() as inside:
        inside.setenv("GIT_DIR", str(mine / ".git"))
        inside.setenv("GIT_WORK_TREE", str(mine))
        inside.setenv("GIT_INDEX_FILE", str(mine / ".git" / "index"))
        inside.setenv("GIT_OBJECT_DIRECTORY", str(mine / ".git" / "objects"))
        sources.spool(f"git+file://{repository}{ref}", tmp_path / "out.tar")
    assert state(mine) == before
    assert content(tmp_path / "out.tar") in ("one", "two")


class _Locked(http.server.SimpleHTTPRequestHandler):
    """A repository over plain HTTP that only one user may read."""

    def do_GET(self) -> None:
        wanted = base64.b64encode(b"user:hunter2/@").decode()
        if self.headers["Authorization"] == f"Basic {wanted}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def locked(repository: Path) -> Iterator[str]:
    """`host:port/path` of the repository, behind a password."""
    subprocess.run(["git", "-C", repository, "update-server-info"], check=True)
    handler = functools.partial(_Locked, directory=str(repository))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}/.git"
        server.shutdown()
        thread.join()


def test_a_password_reaches_git_and_no_command_line(
    locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    helper = f"!cat >> {tmp_path}/kept; :"
    (tmp_path / ".gitconfig").write_text(f'[credential]\n\thelper = "{helper}"\n')
    start, lines = subprocess.Popen, list[str]()

    def watched(argv: list[str], **options: Any) -> Any:
        lines.append(" ".join(map(str, argv)))
        return start(argv, **options)

    monkeypatch.setattr("vmrunner.lib.git.subprocess.Popen", watched)
    sources.spool(f"git+http://user:hunter2%2F%40@{locked}@main", tmp_path / "out.tar")
    assert content(tmp_path / "out.tar") == "two"
    assert lines
    assert "hunter2" not in "".join(lines)
    assert not (tmp_path / "kept").exists()  # the user's own helper was not told
    with pytest.raises(ConfigError, match="cannot be fetched") as caught:
        sources.spool(f"git+http://user:wrongword@{locked}@main", tmp_path / "out.tar")
    assert "wrongword" not in f"{caught.value} {caught.value.hint}"


def test_a_directory_is_packed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("text")
    assert sources.spool(str(tmp_path / "in"), tmp_path / "out.tar").entries == 1
    assert content(tmp_path / "out.tar") == "text"


def test_the_whole_system_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    for name in ("/", "/..", str(tmp_path / "root")):
        with pytest.raises(ConfigError, match="is this whole system"):
            sources.check(name)


def test_a_look_names_what_would_be_packed(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitignore").write_text("*.o\n")
    (repository / "a.o").write_text("ignored")
    (repository / "link").symlink_to("file")
    found = [*sources.look(str(repository))]
    total = sources.spool(str(repository), tmp_path / "out.tar")
    assert (len(found), sum(file.size for file in found)) == (total.files, total.size)
    assert ("link", 0) in found
    assert "a.o" not in {file.path for file in found}
    far = f"git+file://{repository}@main"
    found = [*sources.look(far)]
    total = sources.spool(far, tmp_path / "out.tar")
    assert [(file.path, file.size) for file in found] == [("file", total.size)]
    assert str(total).startswith("1 file, ")


def test_a_look_refuses_what_cannot_be_packed(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="the link 'out' leads outside"):
        list(sources.look(str(tmp_path)))


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """Trees of trees: a few kilobytes that are 100,000 empty files."""
    path = tmp_path / "bomb"
    git = ["git", "-C", str(path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", path], check=True)

    def made(*argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*git, *argv], input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    inner = made("hash-object", "-w", "--stdin")
    entry = "100644 blob"
    for _ in range(5):
        inner = made("mktree", stdin="".join(f"{entry} {inner}\tx{n}\n" for n in range(10)))
        entry = "040000 tree"
    made("update-ref", "refs/heads/main", made("commit-tree", inner, stdin="x"))
    return path


def test_a_repository_that_unpacks_to_much_is_cut_off(bomb: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is larger than 1\.0 MiB .*limits.source_bytes"):
        sources.spool(f"git+file://{bomb}@main", tmp_path / "out.tar", most=1 << 20)
    assert not list(tmp_path.glob("out.tar*"))
    with pytest.raises(ConfigError, match=r"is larger than 1\.0 MiB"):
        list(sources.look(f"git+file://{bomb}@main", most=1 << 20))


def test_a_large_repository_is_cut_off_while_it_is_fetched(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "big").write_bytes(random.Random(1).randbytes(2 << 20))
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for argv in (["add", "."], [*identity, "commit", "-qm", "big"]):
        subprocess.run(["git", "-C", repository, *argv], check=True)
    for act in (
        lambda *a, **k: list(sources.look(*a, **k)),
        lambda s, most: sources.spool(s, tmp_path / "out.tar", most=most),
    ):
        with pytest.raises(ConfigError, match=r"is larger than 1\.0 MiB"):
            act(f"git+file://{repository}@main", most=1 << 20)


def test_a_directory_that_is_large_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"is larger than 1\.0 MiB"):
        sources.spool(str(tmp_path / "in"), tmp_path / "out.tar", most=1 << 20)
    assert not list(tmp_path.glob("out.tar*"))


def test_no_program_of_the_users_configuration_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of servers is heeded all the same."""
    ran = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho x >>{ran}\ncat\n")
    script.chmod(0o755)
    (tmp_path / "templates" / "hooks").mkdir(parents=True)
    for hook in ("reference-transaction", "post-checkout"):
        (tmp_path / "templates" / "hooks" / hook).symlink_to(script)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "git").mkdir(parents=True)
    (tmp_path / ".config" / "git" / "attributes").write_text("* filter=evil\n")
    (tmp_path / ".gitconfig").write_text(
        f"""
[filter "evil"]
\tclean = {script}
\tsmudge = {script}
[init]
\ttemplateDir = {tmp_path}/templates
[core]
\thooksPath = {tmp_path}/templates/hooks
\tfsmonitor = {script}
[tar "tar"]
\tcommand = {script}
[url "file://{repository}"]
\tinsteadOf = "https://example.org/a\\"b\\\\c"
"""
    )
    (repository / ".gitattributes").write_text("* filter=evil\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.hooksPath="]
    for argv in (["add", "."], [*identity, "commit", "-qm", "attributes"]):
        subprocess.run(
            ["git", "-C", repository, *argv], check=True, env={"PATH": os.environ["PATH"]}
        )
    assert not ran.exists()
    sources.spool('git+https://example.org/a"b\\c@main', tmp_path / "out.tar")
    assert not ran.exists()
    assert content(tmp_path / "out.tar") == "two"


@pytest.mark.parametrize("silent", ["server", "fetch", "rev-parse", "archive"])
def test_a_git_that_does_not_answer_is_no_missing_branch(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    url = f"file://{repository}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        if silent == "server":
            url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        else:
            git = tmp_path / "bin" / "git"
            git.parent.mkdir()
            git.write_text(f'#!/bin/sh\ncase "$*" in *" {silent} "*) exec sleep 60;; esac\n')
            git.write_text(f'{git.read_text()}exec {shutil.which("git")} "$@"\n')
            git.chmod(0o700)
            monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
        with pytest.raises(ConfigError) as caught:
            sources.spool(f"git+{url}@main", tmp_path / "out.tar", git_timeout=0.5)
        if silent == "server":
            connection, _ = server.accept()
            connection.settimeout(5)
            while connection.recv(4096):  # until the helper that waits for the server is gone
                pass
            connection.close()
    assert str(caught.value) == (
        f"source: {url}: git did not answer in 0.5s (is its server up and reachable? "
        "try again; what takes that long can be cloned before, and given as a directory)"
    )
    assert not list(tmp_path.glob("out*"))
