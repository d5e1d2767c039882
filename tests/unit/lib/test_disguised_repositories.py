"""No repository comes out of a VM under another name: whoever goes there and looks, as a shell's
prompt does, would run what its configuration names."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from vmrunner.lib.archive.files import ArchiveCaps, extract
from vmrunner.services.artifacts import Artifacts
from vmrunner.store.build_artifacts import LocalArtifacts

CONFIG = """[core]
\trepositoryformatversion = 0
\tbare = false
\tworktree = .
\tfsmonitor = "touch {flag}; false"
"""
HEAD = "ref: refs/heads/main\n"
BARE = {"config": CONFIG, "objects/info/packs": "", "refs/heads/x": ""}

#: Files by name, of one archive after another; a name with `->` is a link.
DISGUISES: dict[str, list[dict[str, str]]] = {
    "bare": [{"d/HEAD": HEAD, **{f"d/{name}": text for name, text in BARE.items()}}],
    "bare in two parts": [{f"d/{name}": text for name, text in BARE.items()}, {"d/HEAD": HEAD}],
    "head is a link": [
        {**{f"d/{name}": text for name, text in BARE.items()}, "d/HEAD -> refs/heads/main": ""}
    ],
    "directories by links": [
        {"o/info/packs": "", "r/heads/x": "", "d/objects -> ../o": "", "d/refs -> ../r": ""},
        {"d/HEAD": HEAD, "d/config": CONFIG},
    ],
    "gitfile": [
        {"d/.git": "gitdir: ../g\n", "g/HEAD": HEAD, **{f"g/{n}": t for n, t in BARE.items()}}
    ],
    "link for a gitfile": [
        {"d/.git -> ../g": "", "g/HEAD": HEAD, **{f"g/{n}": t for n, t in BARE.items()}}
    ],
    "worktree": [
        {
            "d/HEAD": HEAD, "d/commondir": "../g\n", "d/gitdir": "../d/.git\n",
            "d/config.worktree": "[core]\n\tworktree = .\n\tbare = false\n",
            "g/config": CONFIG.replace("worktree = .\n", "") + "[extensions]\n\tworktreeConfig\n",
            "g/objects/x": "", "g/refs/x": "",
        }
    ],
    "submodule": [
        {"d/sub/.git": "gitdir: ../../g\n", "d/sub/a": "", "g/HEAD": HEAD}
        | {f"g/{name}": text for name, text in BARE.items()}
    ],
}  # fmt: skip


def archive(files: dict[str, str], flag: Path) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            path, _, target = name.partition(" -> ")
            info = tarfile.TarInfo(path)
            data = text.replace("{flag}", str(flag)).encode()
            info.size = len(data)
            if target:
                info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def looked_at(root: Path) -> None:
    """What a prompt does, in each directory."""
    env = {"PATH": os.environ["PATH"], "HOME": str(root)}
    for place in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        subprocess.run(
            ["git", "status", "--porcelain"], cwd=place, env=env, capture_output=True, check=False
        )


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("way", ["extract", "download"])
def test_a_repository_in_disguise_does_not_come(tmp_path: Path, name: str, way: str) -> None:
    flag, honest, out = (tmp_path / part for part in ("flag", "honest", "out"))
    every = ("**", "HEAD", ".git")
    for number, files in enumerate(DISGUISES[name]):
        extract(archive(files, flag), honest, ArchiveCaps(), globs=every)
        if way == "extract":
            extract(archive(files, flag), out, ArchiveCaps())
            continue
        stored = tmp_path / f"b-{number}"  # by an engine that knew nothing of it
        extract(archive(files, flag), stored, ArchiveCaps(), globs=every)
        Artifacts(lambda stored=stored: LocalArtifacts(stored), globs=("**",)).download(out)
    looked_at(out)
    assert not flag.exists()
    looked_at(honest)
    assert flag.exists(), "git knows such a thing for a repository: else this shows nothing"


@pytest.mark.parametrize("name", ["HEAD", "head", "Head", "He\u200bad"])
def test_a_head_in_other_letters_does_not_come(tmp_path: Path, name: str) -> None:
    """To some file systems these are one name."""
    extract(
        archive({f"d/{name}": HEAD, "HEAD/a": "", "d/l -> HEAD": ""}, tmp_path),
        tmp_path / "o",
        ArchiveCaps(),
    )
    came = {str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*")}
    assert came == {"d", "d/l", "HEAD", "HEAD/a"}, "a directory of that name is none of git's"


@pytest.mark.parametrize(
    "name", [".git", ".GIT", ".git ", ".git.", "GIT~1", ".g\u200dit", ".hg", ".jj"]
)
def test_configuration_that_is_obeyed_does_not_come(tmp_path: Path, name: str) -> None:
    files = {f"d/{name}/config": CONFIG, f"e/{name}": "gitdir: x", "d/a": ""}
    total = extract(archive(files, tmp_path), tmp_path / "o", ArchiveCaps())
    assert len(total.omitted) == 2
    assert [path.name for path in (tmp_path / "o").rglob("*")] == ["d", "a"]
