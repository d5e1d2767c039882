"""The files of a source: in a git work tree those that git would take, elsewhere all."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmrunner.errors import ConfigError
from vmrunner.lib.archive.contents import contents
from vmrunner.lib.archive.files import pack

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    return place


def git_in(tree: Path) -> Git:
    def git(*argv: str, environ: dict[str, str] | None = None) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        allow = ["-c", "protocol.file.allow=always", "-c", "safe.directory=*"]
        return subprocess.run(
            ["git", "-C", str(tree), *identity, *allow, *argv],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **(environ or {})},
        ).stdout

    return git


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    git_in(path)("init", "-q")
    return path


def fill(root: Path, **files: str) -> None:
    for name, text in files.items():
        put(root, name, text)


def put(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def taken(directory: Path) -> list[str]:
    """The files that are packed."""
    buffer = io.BytesIO()
    total = pack(directory, buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        names = sorted(member.name for member in tar if not member.isdir())
    assert total.files == len(names)
    return names


def test_what_git_tracks_goes_although_it_is_ignored(tree: Path) -> None:
    put(tree, ".gitignore", "lib/\n*.bin\n")
    for name in ("lib/needed.c", "fw.bin", "other.bin", "lib/other.c", "new.c"):
        put(tree, name)
    git_in(tree)("add", "-f", "lib/needed.c", "fw.bin")  # staged is enough
    assert taken(tree) == [".gitignore", "fw.bin", "lib/needed.c", "new.c"]


def test_all_that_a_user_ignores_stays_out(tree: Path, home: Path) -> None:
    put(home, ".config/git/ignore", "*.pem\n")
    put(tree, ".git/info/exclude", "notes.txt\n")
    for name in ("key.pem", "notes.txt", "main.c"):
        put(tree, name)
    assert taken(tree) == ["main.c"]
    put(home, ".gitconfig", f"[core]\n\texcludesFile = {home}/mine\n")
    put(home, "mine", "*.key\n")
    put(tree, "a.key")
    assert taken(tree) == ["key.pem", "main.c"]


def test_a_subdirectory_heeds_what_its_repository_ignores(tree: Path) -> None:
    put(tree, ".gitignore", ".env\nnode_modules/\n/web/secret\n")
    for name in (".env", "web/.env", "web/app.js", "web/node_modules/x.js", "web/secret", "top"):
        put(tree, name)
    assert taken(tree / "web") == ["app.js"]


def test_a_link_to_a_subdirectory_is_that_subdirectory(tree: Path, tmp_path: Path) -> None:
    put(tree, ".gitignore", ".env\n")
    put(tree, "web/.env")
    put(tree, "web/app.js")
    (tmp_path / "short").symlink_to(tree / "web")
    assert taken(tmp_path / "short") == ["app.js"]


def test_tracked_files_that_are_gone_stay_out(tree: Path, tmp_path: Path) -> None:
    for name in ("here", "gone", "was/a", "became/a", "moved/a"):
        put(tree, name)
    git_in(tree)("add", ".")
    (tree / "gone").unlink()
    shutil.rmtree(tree / "was")
    (tree / "was").write_text("a file now")
    shutil.rmtree(tree / "became")
    (tree / "became").symlink_to("here")
    shutil.rmtree(tree / "moved")
    put(tmp_path, "outside/a", "a secret")
    (tree / "moved").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="the link 'moved' leads outside"):
        taken(tree)
    (tree / "moved").unlink()
    assert taken(tree) == ["became", "here", "was"]


def test_unmerged_files_go_once(tree: Path) -> None:
    git = git_in(tree)
    put(tree, "file", "one")
    git("add", ".")
    git("commit", "-qm", "one")
    for branch in ("left", "right"):
        git("checkout", "-q", "-b", branch, "HEAD")
        put(tree, "file", branch)
        git("commit", "-qam", branch)
        git("checkout", "-q", "-")
    git("checkout", "-q", "left")
    with pytest.raises(subprocess.CalledProcessError):
        git("merge", "-q", "right")
    assert taken(tree) == ["file"]


def test_submodules_and_repositories_within_go_too(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    put(other, ".gitignore", "*.o\n")
    put(other, "lib.c")
    git_in(other)("init", "-q")
    git_in(other)("add", ".")
    git_in(other)("commit", "-qm", "x")
    git_in(tree)("submodule", "--quiet", "add", str(other), "vendor/other")
    put(tree, "vendor/other/lib.o")
    put(tree, "nested/file")
    git_in(tree / "nested")("init", "-q")
    (tree / "empty-one").mkdir()
    git_in(tree / "empty-one")("init", "-q")
    names = taken(tree)
    assert names == [".gitmodules", "nested/file", "vendor/other/.gitignore", "vendor/other/lib.c"]
    git_in(tree)("submodule", "--quiet", "deinit", "-f", "vendor/other")
    assert taken(tree) == [".gitmodules", "nested/file"]


def test_a_linked_work_tree_is_one(tree: Path, tmp_path: Path) -> None:
    put(tree, ".gitignore", ".env\n")
    git_in(tree)("add", ".")
    git_in(tree)("commit", "-qm", "x")
    git_in(tree)("worktree", "add", "-q", str(tmp_path / "second"))
    put(tmp_path, "second/.env")
    assert taken(tmp_path / "second") == [".gitignore"]
    shutil.rmtree(tree)  # its repository
    with pytest.raises(ConfigError, match=r"second/\.git is no repository that git can read"):
        taken(tmp_path / "second")


def test_elsewhere_all_goes_but_git(tmp_path: Path) -> None:
    place = tmp_path / "release"
    put(place, ".gitignore", "out/\n")
    for name in ("out/needed", "sub/.git", "main.c"):
        put(place, name)
    (place / "none").mkdir()
    (place / ".git").mkdir()  # as an empty volume hides it
    assert [name for name, _ in contents(place)] == [
        ".gitignore", "main.c", "none", "out", "sub", "out/needed",
    ]  # fmt: skip


def test_a_damaged_repository_is_refused(tree: Path) -> None:
    put(tree, ".env")
    (tree / ".git" / "HEAD").unlink()
    with pytest.raises(ConfigError, match=r"tree/\.git is no repository that git can read"):
        taken(tree)
    (tree / "web").mkdir()
    put(tree, "web/.env")
    with pytest.raises(ConfigError, match="mend or remove it"):
        taken(tree / "web")


@pytest.mark.parametrize("worktree", [None, "."])
def test_a_commit_that_is_a_repository_hides_no_ignores(tree: Path, worktree: str | None) -> None:
    """Who sends a change may send `HEAD`, `config`, `objects` and `refs`: git takes the directory
    for a repository of its own, in which nothing is ignored."""
    put(tree, ".gitignore", ".env\n")
    web = tree / "web"
    put(tree, "web/.env", "secret")
    git_in(web)("init", "-q", "--bare", ".")
    if worktree is not None:
        git_in(web)("config", "core.bare", "false")
        git_in(web)("config", "core.worktree", worktree)
    with pytest.raises(ConfigError, match=r"tree/\.git is above .*git takes that for no work tree"):
        taken(web)


def test_a_configuration_that_hides_the_work_tree_is_refused(tree: Path) -> None:
    put(tree, ".env", "secret")
    git_in(tree)("config", "core.bare", "true")
    with pytest.raises(ConfigError, match=r"core\.bare"):
        taken(tree)


def test_a_bare_repository_elsewhere_goes_whole(tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git_in(tmp_path)("init", "-q", "--bare", str(bare))
    assert "HEAD" in taken(bare)


def test_a_damaged_index_is_refused(tree: Path) -> None:
    put(tree, ".git/index", "nonsense")
    with pytest.raises(ConfigError, match=r"git cannot list the files of .*tree"):
        taken(tree)


def test_a_work_tree_without_git_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "web/.env")
    monkeypatch.setenv("PATH", str(tree))
    with pytest.raises(ConfigError, match=r"tree/\.git makes .*web' a git work tree.*git is miss"):
        taken(tree / "web")
    shutil.rmtree(tree / ".git")
    assert taken(tree / "web") == [".env"]


def test_a_directory_that_git_ignores_is_refused(tree: Path) -> None:
    put(tree, ".gitignore", "dist/\n")
    put(tree, "dist/deep/file")
    with pytest.raises(ConfigError, match=r"git ignores all that is in .*dist"):
        taken(tree / "dist")
    (tree / "new" / "empty").mkdir(parents=True)
    assert taken(tree / "new") == []


def test_nothing_that_the_repository_names_runs(tree: Path, tmp_path: Path) -> None:
    """Nor where it belongs to somebody else."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 >>{ran}\n")
    program.chmod(0o755)
    put(tree, "file")
    git = git_in(tree)
    git("add", ".")
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        (tree / ".git" / "hooks" / hook).symlink_to(program)
    for key in ("core.fsmonitor", "core.pager", "pager.ls-files", "filter.x.clean",
                "core.sshCommand", "remote.origin.uploadpack", "alias.ls-files"):  # fmt: skip
        git("config", key, str(program))
    git("config", "core.hooksPath", str(tree / ".git" / "hooks"))
    git("config", "remote.origin.url", str(tree))
    git("config", "extensions.partialClone", "origin")
    put(tree, ".gitattributes", "* filter=x\n")
    before = (tree / ".git" / "index").read_bytes()
    os.utime(tree / "file", (1, 1))  # what the index says of it is stale
    for owner in (os.geteuid(), 4711)[: 2 if os.geteuid() == 0 else 1]:
        for path in (tree, tree / ".git"):
            os.chown(path, owner, -1)
        assert taken(tree) == [".gitattributes", "file"]
    assert not ran.exists()
    assert (tree / ".git" / "index").read_bytes() == before


def test_no_variable_of_a_hook_leads_to_another_repository(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tree, ".gitignore", ".env\n")
    put(tree, ".env")
    other = tmp_path / "other"
    other.mkdir()
    git_in(other)("init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tree))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.excludesFile=/dev/null'")
    assert taken(tree) == [".gitignore"]


def test_a_forged_index_leads_nowhere(tree: Path) -> None:
    put(tree.parent, "secret/file", "a secret")
    put(tree, "aa/secret/file")
    git_in(tree)("add", ".")
    shutil.rmtree(tree / "aa")
    index = (tree / ".git" / "index").read_bytes()
    for forged in (b"../secret/file", b"/a/secret/file", b".git/ecret/fil"):
        body = index[:-20].replace(b"aa/secret/file", forged)
        (tree / ".git" / "index").write_bytes(body + hashlib.sha1(body).digest())
        with pytest.raises(ConfigError, match=r"git (lists|cannot list)"):
            taken(tree)


_NAME = st.sampled_from(["a", "b", "a.log", ".env", "ü", "x\ny", "-n", " "])
_PATH = st.lists(_NAME, min_size=1, max_size=3).map("/".join)
_RULE = st.sampled_from(["*.log", ".env", "/a", "b/", "!a.log", "a/*", "!a/b", "**/ü", "#x", ""])


@given(
    paths=st.lists(_PATH, max_size=8),
    rules=st.lists(_RULE, max_size=4),
    inner=st.lists(_RULE, max_size=2),
    forced=st.sets(st.integers(0, 7)),
    deleted=st.sets(st.integers(0, 7)),
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_git_would_commit_goes(
    tmp_path: Path,
    paths: list[str],
    rules: list[str],
    inner: list[str],
    forced: set[int],
    deleted: set[int],
) -> None:
    """Judged by the tree that `git add` writes, not by a listing."""
    tree = tmp_path / "drawn"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    git = git_in(tree)
    git("init", "-q")
    put(tree, ".gitignore", "\n".join(rules))
    made = []
    for path in paths:
        try:
            put(tree, path, path)
            made.append(path)
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            continue
    if (tree / "a").is_dir():
        put(tree, "a/.gitignore", "\n".join(inner))
    for number, path in enumerate(made):
        if number in forced:
            git("add", "-f", "--", path)
    for number, path in enumerate(made):
        if number in deleted:
            (tree / path).unlink(missing_ok=True)
    got = taken(tree)
    git("add", "-A")
    listed = git("ls-tree", "-r", "-z", "--name-only", git("write-tree").strip())
    assert got == sorted(name for name in listed.split("\0") if name)
