"""Files of a git work tree, as git names them: those that it tracks, and those that it does not
ignore. No program that the work tree's own configuration names runs for that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.lib import git

# Its user's configuration is kept: there he names what he never shares.
_KEPT: Final = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM", "GIT_EXEC_PATH")
_ENV: Final = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1",  # what git ignores is ignored on a mount in it too
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
# What the work tree's configuration may say, and git would run or write. So its owner need not be
# trusted: a checkout in a container mostly belongs to another user.
_OPTIONS: Final = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "safe.directory=*",
)
_ODD: Final = frozenset({"", ".", "..", ".git"})
_NONE: Final = "not a git repository"


def files(directory: Path, *, timeout: float, top: bool = False) -> list[str] | None:
    """Return the paths, relative to `directory`, of what git tracks or does not ignore below it,
    and of repositories within; of what it tracks some may not be there. None outside of a work
    tree. `top`: none either where the work tree begins above. Raises ConfigError where git cannot
    say it: what it ignores may be a secret."""
    if shutil.which("git") is None:
        if (marked := _marked(directory)) is None:
            return None
        raise ConfigError(
            f"source: {marked} makes {str(directory)!r} a git work tree, and git is missing",
            hint="apt-get install git: it tells what is ignored, such as secrets",
        )
    facts = ("--is-inside-work-tree", "--show-prefix", "--absolute-git-dir")
    where = _git(directory, "rev-parse", *facts, timeout=timeout)
    if where.returncode and _NONE in (complaint := git.complaint(where)):
        if (marked := _marked(directory)) is None:
            return None
        raise ConfigError(
            f"source: {marked} is no repository that git can read: {complaint}",
            hint="mend or remove it: what git ignores, such as secrets, is not told without it",
        )
    _refuse(directory, where)
    inside, prefix, git_dir = where.stdout.split(b"\n", 2)
    here = directory.resolve()
    if inside != b"true" or Path(os.fsdecode(git_dir[:-1])) in (here, *here.parents):
        if (marked := _marked(directory)) is None:
            return None
        # A bare repository, which a commit can bring, or a configuration hides the work tree.
        raise ConfigError(
            f"source: {marked} is above {str(directory)!r}, and git takes that for no work tree: "
            "what it ignores, such as secrets, is not told",
            hint="see: git rev-parse --git-dir, and core.bare and core.worktree; or copy it "
            "elsewhere",
        )
    if top and prefix.strip():
        return None
    options = ("--cached", "--others", "--exclude-standard", "-z")
    listed = _git(directory, "ls-files", *options, timeout=timeout)
    _refuse(directory, listed)
    names = [os.fsdecode(name).rstrip("/") for name in listed.stdout.split(b"\0") if name]
    for name in names:  # a forged index names anything
        if not _ODD.isdisjoint(name.lower().split("/")):
            raise ConfigError(
                f"source: git lists {name!r}, which is no file of {str(directory)!r}",
                hint="its index is damaged: make it anew (git rm -r --cached . && git add .)",
            )
    return names


def _git(directory: Path, *argv: str, timeout: float) -> subprocess.CompletedProcess[bytes]:
    options = [word for option in _OPTIONS for word in ("-c", option)]
    return git.call(
        ["git", "--no-pager", "-C", str(directory), *options, *argv],
        environ={**git.environment(_KEPT), **_ENV},
        timeout=timeout,
        source=str(directory),
        hint=f"see what it waits for: git -C {directory} status",
    )


def _refuse(directory: Path, done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode:
        raise ConfigError(
            f"source: git cannot list the files of {str(directory)!r}: {git.complaint(done)}",
            hint=f"see: git -C {directory} ls-files",
        )


def _marked(directory: Path) -> Path | None:
    """Return the nearest `.git` that a repository should be at, at `directory` or above it."""
    here = directory.resolve()
    for place in (here, *here.parents):
        mark = place / ".git"
        try:
            if mark.is_file() or (mark.is_dir() and any(mark.iterdir())):
                return mark
        except OSError:
            return mark
    return None
