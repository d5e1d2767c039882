"""Files about the commands of a sandbox.

RUN/running/ID        empty, while it runs
RUN/commands/ID/      on a tmpfs
    order             what was asked for
    out, err          what it wrote, each up to a cap
    state             one JSON line once it ended
    group             its shell's pid and its control group, from its beginning on
    taken             how many bytes of its stdin were taken; "end" once there will be no more
    alive             locked by its process
    wake              a FIFO: a request has come
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from typing import Any

from .state import Place

AT_ONCE = 32
ALL = 64 << 20  # bytes of output that are kept; the oldest that ended are forgotten for it
SPARE = 1 << 20  # bytes beside for each, for the small files
KEPT_COMMANDS = 1000  # commands that ended; older ones are forgotten, their ids too
MORE = 64  # … but not each time


def directory(place: Place, name: str) -> str:
    """Return the directory of one command. Raises ValueError for what is no id."""
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{name[:80]!r} is no id of a command")
    return f"{place.run}/commands/{name[:64]}"


def make(place: Place, path: str, order: bytes) -> int:
    """Write down what was asked for, whole or not at all; return what is locked while its process
    lives. The caller holds the lock of all."""
    commands = os.path.dirname(path)
    is_short = room(place) < len(order) + AT_ONCE * SPARE // 4  # some came with long words
    if is_short or len(os.listdir(commands)) >= KEPT_COMMANDS + MORE:
        over = _oldest(commands, "state")
        half = (len(over) + 1) // 2 if is_short else 0
        _forget(over[: max(half, len(over) - KEPT_COMMANDS + 1)])
    try:
        os.makedirs(path, 0o700)
        os.mkfifo(f"{path}/wake", 0o600)
        alive = os.open(f"{path}/alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX)
        with open(f"{path}/order.new", "wb") as file:
            file.write(order)
        os.rename(f"{path}/order.new", f"{path}/order")
        os.close(os.open(_mark(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return alive


def running(place: Place) -> int:
    """The number of commands that run. One whose process died does not."""
    return sum(lives(directory(place, name)) for name in os.listdir(f"{place.run}/running"))


def lives(path: str) -> bool:
    """True while a command's process is there."""
    lock = os.open(f"{path}/alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def known(place: Place) -> list[str]:
    """Return the directories of all commands, the oldest first."""
    return _oldest(f"{place.run}/commands", "order")


def ended(path: str) -> dict[str, Any] | None:
    """The end of a command; None while it runs."""
    try:
        with open(f"{path}/state", encoding="utf-8") as file:
            return json.load(file)  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None


def end(path: str, **state: str | int | float | bool | None) -> bytes:
    """Note how it ended, whole or not at all; return that note."""
    text = json.dumps(state).encode()
    with open(f"{path}/state.new", "wb") as file:
        file.write(text)
    os.rename(f"{path}/state.new", f"{path}/state")
    with suppress(FileNotFoundError):
        os.remove(_mark(path))
    return text


def has_room(place: Place, size: int) -> bool:
    """Make room for so many bytes: forget what commands wrote that ended, the oldest first."""
    needed = size + AT_ONCE * SPARE // 2
    if room(place) >= needed:
        return True
    for path in _oldest(f"{place.run}/commands", "state"):
        for name in ("out", "err"):
            with suppress(FileNotFoundError):
                os.remove(f"{path}/{name}")
        if room(place) >= needed:
            return True
    return False


def room(place: Place) -> int:
    """The number of bytes that still fit."""
    disk = os.statvfs(f"{place.run}/commands")
    return disk.f_bavail * disk.f_frsize


def taken(path: str) -> tuple[int, bool]:
    """The bytes of its stdin that a command was given, and whether that was all."""
    try:
        with open(f"{path}/taken", encoding="ascii") as file:
            count, _, last = file.read().partition(" ")
    except FileNotFoundError:
        return 0, False
    return int(count), last == "end"


def note_taken(path: str, count: int, *, over: bool) -> None:
    with open(f"{path}/taken.new", "w", encoding="ascii") as file:
        file.write(f"{count} {'end' if over else ''}")
    os.rename(f"{path}/taken.new", f"{path}/taken")


def _mark(path: str) -> str:
    above, name = os.path.split(path)
    return f"{os.path.dirname(above)}/running/{name}"


def _oldest(commands: str, file: str) -> list[str]:
    """Return the directories with such a file, by its age: of the state, the last that ended may be
    asked for yet, however long ago it began."""
    found = []
    with suppress(FileNotFoundError):
        for entry in os.scandir(commands):
            with suppress(FileNotFoundError):
                found.append((os.stat(f"{entry.path}/{file}").st_mtime_ns, entry.path))
    return [path for _, path in sorted(found)]


def _forget(paths: list[str]) -> None:
    for path in paths:
        if not os.path.exists(_mark(path)):
            shutil.rmtree(path, ignore_errors=True)
