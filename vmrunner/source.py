"""What a build works on: a directory or a git revision, packed once, when it is submitted.

The spool file is the same bytes for every attempt and every take-over.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from vmrunner import archive
from vmrunner.errors import ConfigError

GIT: Final = "git+"

# Never a prompt, never a helper program named by a URL (`ext::sh -c …`).
_GIT_ENV: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_ASKPASS": "true",
    "LC_ALL": "C",
}


class GitSource(NamedTuple):
    """`git+URL@REF`; HEAD without a ref."""

    url: str
    ref: str

    @classmethod
    def parse(cls, text: str) -> GitSource:
        """An `@` before the last `/` or `:` belongs to the URL: `git+ssh://git@host/repo`."""
        rest = text.removeprefix(GIT)
        at = rest.rfind("@")
        if at <= max(rest.rfind("/"), rest.rfind(":")):
            # A ref may hold slashes: then the `@` that counts follows the host's part.
            path = rest.find("/", rest.find("://") + 3 if "://" in rest else 0)
            at = rest.find("@", path) if path >= 0 else -1
        url, ref = (rest[:at], rest[at + 1 :]) if at > 0 else (rest, "HEAD")
        if not url or not ref or url.startswith("-") or ref.startswith("-") or ":" in ref:
            raise ConfigError(
                f"source: {text!r} is not git+URL@REF", hint="such as git+https://host/repo@main"
            )
        return cls(url, ref)

    @property
    def shown(self) -> str:
        """The URL without what may be a password."""
        return re.sub("//[^/@]*@", "//", self.url)

    def hide(self, text: str) -> str:
        return text.replace(self.url, self.shown)


def check(source: str) -> None:
    """Raises ConfigError when it can be known to be wrong without packing it."""
    if source.startswith(GIT):
        GitSource.parse(source)
        if shutil.which("git") is None:
            raise ConfigError("source: git is missing", hint="apt-get install git")
    elif not Path(source).exists():
        raise ConfigError(f"source: {source!r} does not exist", hint="name a directory")
    elif not Path(source).is_dir():
        raise ConfigError(f"source: {source!r} is not a directory", hint="name its directory")


def spool(source: str, path: Path, *, git_timeout: float = 600) -> archive.Total:
    """Pack it into `path`, readable by this user alone; whole or not at all."""
    check(source)
    partial = path.with_name(f"{path.name}.part")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            if source.startswith(GIT):
                _archive(GitSource.parse(source), file.fileno(), git_timeout)
                total = archive.Total(size=file.tell() or os.fstat(file.fileno()).st_size)
            else:
                total = archive.pack(Path(source), file)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"source: {source!r} cannot be packed into {path.parent}: {error.strerror}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return total


def _archive(source: GitSource, output: int, timeout: float) -> None:
    """A tar of one revision. Submodules are left out: they are other repositories."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-git-") as directory:

        def git(*argv: str, stdout: int = subprocess.DEVNULL) -> str:
            return _git(directory, argv, stdout, timeout)

        git("init", "--quiet", "--bare")
        wanted = "FETCH_HEAD"
        if git("fetch", "--quiet", "--depth=1", "--no-tags", "--", source.url, source.ref):
            # A short commit id is no ref: it takes the whole history to know what it means.
            everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if complaint := git("fetch", "--quiet", "--", source.url, *everything):
                raise ConfigError(
                    f"source: {source.shown} cannot be fetched: {source.hide(complaint)}",
                    hint="check the URL, and that git can read it without asking",
                )
            wanted = source.ref
        if complaint := git("archive", "--format=tar", f"{wanted}^{{tree}}", stdout=output):
            raise ConfigError(
                f"source: {source.shown} has no {source.ref!r}: {complaint}",
                hint="name a branch, a tag or a commit",
            )


def _git(directory: str, argv: tuple[str, ...], stdout: int, timeout: float) -> str:
    """Empty when it succeeded, else the line of its complaint that says what is wrong."""
    try:
        done = subprocess.run(
            ["git", "-C", directory, *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, **_GIT_ENV},
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {timeout:.0f} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    # Advice follows the first fatal line: "Please make sure you have the correct access rights …".
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return (fatal or lines[-1:] or [f"exit code {done.returncode}"])[0]
