"""Layout of a provider's state directory.

    instances/<installation>_<instance>_<deadline>/   one VM: all that it has
    instances/.new-*/                                 being filled; renamed when whole
    ended.jsonl                                       tombstones: how each VM ended; kept a while
    lock                                              held while one is named, or buried
    host-id                                           the directory's own: machines may be cloned

The directory's name says whose it is, which and until when, so that a sweep needs no ledger and
no file that could be corrupt. This module is read by the keeper: standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from vmrunner.providers.qemu import cgroup

PLAN: Final = "plan.json"
TAGS: Final = "tags.json"
KEEPER: Final = "keeper.json"
LOCK: Final = "lock"
END: Final = "end"
OVERLAY: Final = "overlay.qcow2"
SSH: Final = "ssh"  # the socket at which the VM's sshd answers
GROUP: Final = "group"  # in the keeper's file: its control group
CONSOLE: Final = "console.log"
DUE: Final = (
    "due"  # an end before its deadline, epoch seconds: a build of a pool's VM has less time
)
HELD: Final = "due.held"  # … that its keeper has taken note of
STARTED: Final = "started"  # how its VM came to be, once its identity is its own
NEW: Final = ".new-"
HOST: Final = "host-id"

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_NAME: Final = re.compile(
    r"(?P<installation>[A-Za-z0-9][A-Za-z0-9-]{0,63})"
    r"_(?P<instance>[A-Za-z0-9][A-Za-z0-9-]{0,63})"
    r"_(?P<deadline>[0-9]{1,12})"
)


class DirName(NamedTuple):
    """The parts of a directory's name."""

    installation: str
    instance: str
    deadline: int  # epoch seconds

    def __str__(self) -> str:
        return f"{self.installation}_{self.instance}_{self.deadline}"


def parse(text: str) -> DirName | None:
    """The name, or None when it is not one of ours."""
    match = _NAME.fullmatch(text)
    return DirName(match[1], match[2], int(match[3])) if match else None


def is_word(text: str) -> bool:
    """True if `text` can be an installation or an instance in a name."""
    return _WORD.fullmatch(text) is not None


@dataclass(frozen=True)
class InstanceDir:
    """One VM's directory. It may vanish at any moment: reading what is not there gives None."""

    path: Path

    @property
    def name(self) -> DirName | None:
        return parse(self.path.name)

    def read(self, file: str) -> dict[str, Any] | None:
        return read_json(self.path / file)

    def time(self, file: str) -> float | None:
        """Return the time in a file; None when it is missing or no number."""
        try:
            return float((self.path / file).read_text())
        except (OSError, ValueError):
            return None

    def write_time(self, file: str, at: float) -> None:
        """Whole or not at all, and on the disk when this returns."""
        _replace(self.path / file, repr(at))

    def lowered(self, deadline: float) -> float:
        """Return the deadline, or an earlier end that was asked for; that is told as taken note
        of. By the keeper alone."""
        due = self.time(DUE)
        if due is None or due == self.time(HELD):
            return deadline
        with contextlib.suppress(OSError):
            self.write_time(HELD, due)
        return min(deadline, due)

    @property
    def held(self) -> bool:
        """True if a keeper lives that holds this VM. The kernel drops its lock with it."""
        try:
            with (self.path / LOCK).open("rb") as file:
                ask = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                answer = fcntl.fcntl(file, fcntl.F_GETLK, ask)
        except FileNotFoundError:
            return False
        return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)


@dataclass(frozen=True)
class StateDir:
    """A provider's state directory."""

    path: Path

    @property
    def instances(self) -> Path:
        return self.path / "instances"

    @property
    def ended(self) -> Path:
        return self.path / "ended.jsonl"

    def prepare(self) -> None:
        """Make what is missing. A directory gets an id of its own before its first VM; one that is
        older has none, and stays what its rows call it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.instances.exists():
            made = self.path / f".{HOST}.{os.getpid()}.{os.urandom(4).hex()}"
            made.write_text(os.urandom(6).hex())
            with contextlib.suppress(FileExistsError):
                (self.path / HOST).hardlink_to(made)  # the first one wins
            made.unlink()
        self.instances.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def host(self) -> str:
        """The id of this directory; "": it is older than such ids."""
        try:
            return (self.path / HOST).read_text().strip()
        except FileNotFoundError:
            return ""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, over all processes, for as long as naming or burying takes."""
        with (self.path / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def instance_dirs(self) -> list[InstanceDir]:
        """Return every directory that is not a half-made one, ours by its name or not."""
        try:
            entries = sorted(self.instances.iterdir())
        except FileNotFoundError:
            return []
        return [InstanceDir(entry) for entry in entries if not entry.name.startswith(NEW)]

    def instance_dir(self, instance: str) -> InstanceDir | None:
        """The instance's directory; with a name that is not ours, the one called exactly so."""
        for instance_dir in self.instance_dirs():
            name = instance_dir.name
            if (name.instance if name else instance_dir.path.name) == instance:
                return instance_dir
        return None

    def tombstones(self) -> dict[str, dict[str, Any]]:
        """Tombstones of ended instances by their id, while these are remembered."""
        try:
            lines = self.ended.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        stones = (tombstone for line in lines if (tombstone := _object(line)) is not None)
        return {str(tombstone.get("instance")): tombstone for tombstone in stones}

    def tombstone(self, instance: str) -> dict[str, Any] | None:
        return self.tombstones().get(instance)

    def record_death(self, instance_dir: InstanceDir, death: Mapping[str, Any]) -> None:
        """Remember how a dead VM ended, and remove all that it had. Again is harmless: the first
        account stays. Its disk goes first, since there may be no room to write before."""
        console = console_tail(instance_dir.path, 4096)
        _clear(instance_dir.path)
        name = instance_dir.name
        if name is not None:
            plan = instance_dir.read(PLAN) or {}
            tombstone = {
                "instance": name.instance,
                "installation": name.installation,
                "deadline": name.deadline,
                **death,
                "created": plan.get("created"),
                "order": plan.get("order"),
                "console": console,
            }
            with self.locked():
                if name.instance not in self.tombstones():
                    _append(self.ended, json.dumps(tombstone).encode() + b"\n")
        if group := (instance_dir.read(KEEPER) or {}).get(GROUP):
            cgroup.remove(Path(group))
        shutil.rmtree(instance_dir.path, ignore_errors=True)

    def prune(self, now: float, *, remember: float, half_made: float) -> None:
        """Forget VMs that ended, and had to end, long ago; remove what a creator that died left
        under a temporary name."""

        def old(tombstone: Mapping[str, Any]) -> bool:
            return max(tombstone.get("ended") or 0, tombstone.get("deadline") or 0) + remember < now

        if any(map(old, self.tombstones().values())):
            with self.locked():
                kept = [tombstone for tombstone in self.tombstones().values() if not old(tombstone)]
                text = "".join(f"{json.dumps(tombstone)}\n" for tombstone in kept)
                _replace(self.ended, text)
        for new in self.instances.glob(f"{NEW}*"):
            with contextlib.suppress(OSError):
                if now > new.stat().st_mtime + half_made:
                    shutil.rmtree(new, ignore_errors=True)


def _clear(directory: Path) -> None:
    """Remove what is large in a dead VM's directory: all but what says whose it was."""
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.name not in (PLAN, TAGS, KEEPER, LOCK, END) and not entry.is_dir():
            entry.unlink(missing_ok=True)


def console_tail(directory: Path, limit: int) -> str:
    """The end of the console log as text, at most `limit` bytes of it."""
    try:
        with (directory / CONSOLE).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None when it is missing, cut or something else."""
    try:
        return _object(path.read_bytes())
    except OSError:
        return None


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all, and on the disk when this returns."""
    _replace(path, json.dumps(value))


def _append(path: Path, line: bytes) -> None:
    """Whole or not at all."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        if file.write(line) != len(line):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{NEW}{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
