"""Files beside the ledger: its directory, its secret, the installation's name.

Everything is made readable by its owner alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.lib import private_dirs

#: File systems of one machine alone, on which the shared memory of SQLite's WAL works. What is not
#: here may be shared between machines: there are too many of those to name them, and new ones.
_LOCAL: Final = frozenset({
    "ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "zfs", "f2fs", "jfs", "reiserfs", "nilfs2",
    "tmpfs", "ramfs", "rootfs", "overlay", "aufs", "ecryptfs", "fuse.gocryptfs", "fuse.encfs",
    "fuse.fuse-overlayfs", "ubifs", "vfat", "exfat", "ntfs3", "fuseblk", "ufs",
})  # fmt: skip
#: Names a file system that the user knows to be local.
LOCAL_VARIABLE: Final = "VMRUNNER_LOCAL_FILE_SYSTEM"


def ready_directory(path: Path, *, field: str, fix: str, make: bool = True) -> None:
    """Make `path` (0700) if it is missing. Raises ConfigError, whose hint is `fix`, when it cannot
    be used."""
    if not (make or path.exists()):
        raise ConfigError(f"{field}: the directory {path} is not there", hint=f"mkdir -p {path}")
    try:
        private_dirs.make(path)
    except OSError as error:
        why = f"the directory {path} cannot be made: {error.strerror}"
        raise ConfigError(f"{field}: {why}", hint=fix) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"{field}: the directory {path} is not writable", hint=fix)


def ready_file(path: Path, *, field: str) -> None:
    """Make an empty `path` (0600) if it is missing; SQLite gives its side files the same mode.
    Raises ConfigError when it cannot be used.

    One that is there is never opened: to close it would take from this process all locks that
    SQLite holds on it, as POSIX has it."""
    why = None
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.is_file():
            why = "it is no file"
        elif not os.access(path, os.R_OK | os.W_OK):
            why = os.strerror(errno.EACCES)
    except OSError as error:
        why = error.strerror
    if why is not None:
        raise ConfigError(
            f"{field}: the file {path} cannot be opened: {why}",
            hint=f"set {field} to a file that you may read and write",
        )


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that `path` lies on, by the text of /proc/self/mounts."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")  # a space is written \040
        if len(point) >= best and path.is_relative_to(point):
            best, kind = len(point), found
    return kind


def refuse_network_disk(path: Path, mounts: str) -> None:
    """Raises ConfigError when `path` lies on a file system that other machines may share."""
    kind = file_system(path.resolve(), mounts)
    if kind and kind in (*_LOCAL, os.environ.get(LOCAL_VARIABLE)):
        return
    raise ConfigError(
        f"database.url: {path} is on {kind or 'a file system that is not known'}, which other "
        "machines may share: SQLite loses its locks there",
        hint="put the ledger on a local disk, or use PostgreSQL; if no other machine ever has that "
        f"disk, say {LOCAL_VARIABLE}={kind}",
    )


def read_or_make(path: Path, text: str) -> str:
    """The content of `path`; made with `text` (0600), whole or not at all, if it is missing.
    Raises ConfigError when it cannot be read or made."""
    try:
        found = read(path)
        if found is None:
            draft = _draft(path, text)
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass  # another process was first: its text holds
            finally:
                draft.unlink()
            found = path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read or made: {error.strerror}", hint="check who owns it"
        ) from error
    return found


def replace(path: Path, text: str) -> None:
    """Put `text` in `path` (0600) at once."""
    _draft(path, text).replace(path)


def read(path: Path) -> str | None:
    """Return the file's text; None when there is no such file."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


def refuse_public(path: Path) -> None:
    """Raises ConfigError when others than its owner may read it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} may be read by others (mode {mode:04o})", hint=f"chmod 600 {path}"
        )


def _draft(path: Path, text: str) -> Path:
    """A file beside `path` that holds `text` and is on disk."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return draft


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other processes out of the same block while a ledger is made or migrated."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a fork's copy of it would hold it on
        os.close(descriptor)
