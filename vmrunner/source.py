"""What a build works on: a directory or a git revision, packed once, when it is submitted.

The spool file is the same bytes for every attempt and every take-over.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

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
# What is kept of the user's: how servers are reached. In a hook all else names his repository.
_KEPT: Final = (
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "GIT_HTTP_",
    "GIT_PROXY_SSL_",
    "GIT_SSL_",
)
# A credential helper: git reads from it what nobody else can read.
_TELL: Final = """!tell() {
    [ "$1" = get ] || return 0
    printf 'username=%s\\npassword=%s\\n' "$VMRUNNER_GIT_USER" "$VMRUNNER_GIT_PASSWORD"
}; tell"""
_SSH: Final = ("ssh", "git+ssh", "ssh+git")
_HOST: Final = re.compile(r"([^\[\]:@\s=]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")


class _Url(NamedTuple):
    """`scheme://user:password@host/rest`; without a scheme all of it is `rest`."""

    scheme: str
    user: str | None
    password: str | None
    host: str  # and port
    rest: str  # from the first slash on

    @classmethod
    def split(cls, text: str) -> _Url:
        scheme, mark, after = text.partition("://")
        if not mark:
            return cls("", None, None, "", text)
        authority, slash, path = after.partition("/")
        who, at, host = authority.rpartition("@")
        user, colon, password = who.partition(":")
        return cls(
            scheme, user if at else None, password if colon else None, host, f"{slash}{path}"
        )

    @property
    def plain(self) -> str:
        """Without what may be a password. For SSH, which takes none from here, the user stays."""
        if not self.scheme:
            return self.rest
        who = f"{self.user}@" if self.user and self.scheme in _SSH else ""
        return f"{self.scheme}://{who}{self.host}{self.rest}"


@dataclass(frozen=True, slots=True)
class GitSource:
    """`git+URL@REF`; HEAD without a ref. User and password are not in `url`."""

    url: str
    ref: str
    server: str = ""  # scheme, host and port that the password is for
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> GitSource:
        """An `@` before the last `/` or `:` belongs to the URL: `git+ssh://git@host/repo`.
        Raises ConfigError, which tells no password."""
        whole = _Url.split(text.removeprefix(GIT))
        rest = whole.rest
        at = rest.rfind("@")
        if at <= max(rest.rfind("/"), rest.rfind(":")):
            # A ref may hold slashes: then the `@` that counts follows the host's part.
            path = rest.find("/")
            at = rest.find("@", path) if path >= 0 else -1
        place, ref = (rest[:at], rest[at + 1 :]) if at > 0 else (rest, "HEAD")
        url = whole._replace(rest=place).plain
        if (
            not text.isprintable()
            or not place
            or not ref
            or url.startswith("-")
            or ref.startswith("-")
            or ":" in ref
            or not _HOST.fullmatch(whole.host)
        ):
            raise ConfigError(
                f"source: {shown(text)!r} is not git+URL@REF",
                hint="such as git+https://host/repo@main",
            )
        if whole.scheme not in ("http", "https") or whole.user is None:
            return cls(url, ref)
        server = f"{whole.scheme}://{whole.host}"
        return cls(url, ref, server, _decoded(whole.user), _decoded(whole.password))

    def environment(self) -> dict[str, str]:
        """What git is told beside its command line, which others can read."""
        config: list[tuple[str, str]] = []
        told: dict[str, str] = {}
        if self.password is not None and self.user is not None:
            # The user's own helpers would be asked first, and told to remember it.
            config = [("credential.helper", ""), (f"credential.{self.server}.helper", _TELL)]
            told = {"VMRUNNER_GIT_USER": self.user, "VMRUNNER_GIT_PASSWORD": self.password}
        elif self.user:
            config = [(f"credential.{self.server}.username", self.user)]
        told["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(config):
            told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return told


def _decoded(text: str | None) -> str | None:
    """Percent signs taken for what they stand for, as git does."""
    if text is None:
        return None
    plain = unquote_to_bytes(text)
    if any(byte in plain for byte in b"\0\r\n"):
        raise ConfigError("source: the URL's user or password holds a line's end or a NUL byte")
    return os.fsdecode(plain)


def shown(source: str) -> str:
    """A source as it may be told and kept: without what may be a password."""
    if not source.startswith(GIT):
        return source
    url = _Url.split(source.removeprefix(GIT))
    if not _HOST.fullmatch(url.host):  # a password with a slash in it ends up here
        return f"{GIT}{url.scheme}://…"
    return f"{GIT}{url.plain}"


def refuse_url(said: str) -> None:
    """Raises ConfigError for a directory that looks like a repository's URL."""
    if not said.startswith(GIT) and re.match(r"[a-z+]+://|[\w.-]+@[\w.-]+:", said):
        url = shown(f"{GIT}{said}").removeprefix(GIT)
        raise ConfigError(
            f"source: {url!r} is not a directory", hint=f"a repository: {GIT}{url}@REF"
        )


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


def look(source: str, *, git_timeout: float = 600) -> None:
    """`check`, and of a repository whether it and its revision are there, for who packs nothing:
    that takes a fetch. Raises ConfigError."""
    check(source)
    if source.startswith(GIT):
        try:
            _archive(GitSource.parse(source), subprocess.DEVNULL, git_timeout)
        except OSError as error:
            raise ConfigError(f"source: {shown(source)!r} cannot be fetched: {error}") from error


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
            f"source: {shown(source)!r} cannot be packed into {path.parent}: {error.strerror}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return total


def _archive(source: GitSource, output: int, timeout: float) -> None:
    """A tar of one revision. Submodules are left out: they are other repositories."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-git-") as directory:

        def git(*argv: str, stdout: int = subprocess.DEVNULL) -> str:
            return _git(directory, argv, stdout, timeout, source)

        git("init", "--quiet", "--bare")
        wanted = "FETCH_HEAD"
        if git("fetch", "--quiet", "--depth=1", "--no-tags", "--", source.url, source.ref):
            # A short commit id is no ref: it takes the whole history to know what it means.
            everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if complaint := git("fetch", "--quiet", "--", source.url, *everything):
                raise ConfigError(
                    f"source: {source.url} cannot be fetched: {complaint}",
                    hint="check the URL, and that git can read it without asking",
                )
            wanted = source.ref
        if complaint := git("archive", "--format=tar", f"{wanted}^{{tree}}", stdout=output):
            raise ConfigError(
                f"source: {source.url} has no {source.ref!r}: {complaint}",
                hint="name a branch, a tag or a commit",
            )


def _git(
    directory: str, argv: tuple[str, ...], stdout: int, timeout: float, source: GitSource
) -> str:
    """Empty when it succeeded, else the line of its complaint that says what is wrong."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(_KEPT)
    }
    try:
        done = subprocess.run(
            ["git", "-C", directory, f"--git-dir={directory}", *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**mine, **_GIT_ENV, **source.environment()},
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
