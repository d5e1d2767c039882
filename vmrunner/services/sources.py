"""Sources of builds: a directory or a git revision, packed once, when it is submitted.

The spool file is the same bytes for every attempt and every take-over.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from vmrunner.errors import ConfigError
from vmrunner.lib import git
from vmrunner.lib.archive import files
from vmrunner.lib.archive.contents import contents

GIT: Final = "git+"
SOURCE_BYTES: Final = 2 << 30  # of a source, packed

# A credential helper: git reads from it what no other user can read.
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
        login, at, host = authority.rpartition("@")
        user, colon, password = login.partition(":")
        return cls(
            scheme, user if at else None, password if colon else None, host, f"{slash}{path}"
        )

    @property
    def plain(self) -> str:
        """Return the URL without what may be a password. For SSH, which takes none from here, the
        user stays."""
        if not self.scheme:
            return self.rest
        login = f"{self.user}@" if self.user and self.scheme in _SSH else ""
        return f"{self.scheme}://{login}{self.host}{self.rest}"


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
            or "^{/" in ref  # it searches messages: no name of a revision
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
        """Variables for git. Its command line holds no secret, since other users can read it."""
        config: list[tuple[str, str]] = []
        variables: dict[str, str] = {}
        if self.password is not None and self.user is not None:
            # The user's own helpers would be asked first, and told to remember it.
            config = [("credential.helper", ""), (f"credential.{self.server}.helper", _TELL)]
            variables = {"VMRUNNER_GIT_USER": self.user, "VMRUNNER_GIT_PASSWORD": self.password}
        elif self.user:
            config = [(f"credential.{self.server}.username", self.user)]
        variables["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(config):
            variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return variables


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


def refuse_url(source: str) -> None:
    """Raises ConfigError for a directory that looks like a repository's URL."""
    if not source.startswith(GIT) and re.match(r"[a-z+]+://|[\w.-]+@[\w.-]+:", source):
        url = shown(f"{GIT}{source}").removeprefix(GIT)
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
    elif Path(source).resolve() == Path("/"):
        raise ConfigError(
            f"source: {source!r} is this whole system", hint="name the directory of a project"
        )


class SourceFile(NamedTuple):
    """One file or link of a source, with its size in bytes."""

    path: str
    size: int


def look(
    source: str, *, most: int = SOURCE_BYTES, git_timeout: float = 600
) -> Iterator[SourceFile]:
    """Yield the files that `spool` would pack, without keeping anything. A repository is fetched
    for that. Raises ConfigError."""
    check(source)
    if not source.startswith(GIT):
        for path, info in contents(Path(source), timeout=git_timeout):
            entry = files.member(Path(source), path, info)
            if not entry.isdir():
                yield SourceFile(path, entry.size)
        return
    try:
        with tempfile.TemporaryFile(prefix="vmrunner-source-") as file:
            _archive(source, file, most, git_timeout)
            file.seek(0)
            yield from _members(file)
    except OSError as error:
        raise ConfigError(f"source: {shown(source)!r} cannot be fetched: {error}") from error


def spool(
    source: str, path: Path, *, most: int = SOURCE_BYTES, git_timeout: float = 600
) -> files.ArchiveTotal:
    """Pack it into `path`, readable by this user alone; whole or not at all, and at most so many
    bytes."""
    check(source)
    partial = path.with_name(f"{path.name}.part")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            if source.startswith(GIT):
                _archive(source, file, most, git_timeout)
                with partial.open("rb") as packed:
                    sizes = [member.size for member in _members(packed)]
                total = files.ArchiveTotal(files=len(sizes), size=sum(sizes))
            else:
                total = files.pack(Path(source), _Limited(file, source, most))
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"source: {shown(source)!r} cannot be packed into {path.parent}: {error.strerror}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return total


def _archive(source: str, file: BinaryIO, most: int, timeout: float) -> None:
    """Fetch a revision of a repository, and write a tar of it."""
    wanted = GitSource.parse(source)
    with git.fetched(
        wanted.url, wanted.ref, wanted.environment(), most=most, timeout=timeout
    ) as repository:
        repository.archive(wanted.ref, file.fileno())


def _members(file: BinaryIO) -> Iterator[SourceFile]:
    """Yield the files and links of a tar that git wrote."""
    with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
            if not member.isdir():
                yield SourceFile(member.name, member.size)


class _Limited:
    """A file that may not grow past a limit."""

    def __init__(self, file: BinaryIO, source: str, most: int) -> None:
        self._file = file
        self._source = source
        self._most = most
        self._size = 0

    def tell(self) -> int:
        return self._size

    def write(self, data: bytes, /) -> object:
        self._size += len(data)
        if self._size > self._most:
            raise git.too_large(self._source, self._most)
        return self._file.write(data)
