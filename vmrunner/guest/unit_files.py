"""Files of a unit's sandbox outside of its work directory, by the container's own programs. Each
operation is a command that is neither listed nor logged.

What the container has no program for is refused with a hint: below the work directory nothing of
the image is needed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .command import Command
from .command_io import Output
from .command_records import ended, note_taken
from .state import Place

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
_FACTS = 'printf "%s %s\\n" "$(stat -c "%f %s %Y" -- "$n")" "$n"'
SCRIPTS = {
    "read": 'exec cat -- "$1"',
    "write": 'mkdir -p -- "${1%/*}/" && exec cat >"$1"',
    "make_dir": 'exec mkdir -p -- "$1"',
    "remove": '[ -e "$1" ] || [ -L "$1" ] || exec ls -d -- "$1"; exec rm -rf -- "$1"',
    "stat": f'ls -d -- "$1" >/dev/null && n=$1 && {_FACTS}',
    "list": f'cd -- "$1" && ls -1A | while IFS= read -r n; do {_FACTS} || exit; done',
}
ERRORS = {
    "No such file": errno.ENOENT,
    "no such directory": errno.ENOENT,
    "Permission denied": errno.EACCES,
    "Is a directory": errno.EISDIR,
    "Not a directory": errno.ENOTDIR,
    "not found": errno.EOPNOTSUPP,
}
SECONDS = 300.0  # for one of them


class _Quiet(Command):
    """A command whose words and output are not the build's log."""

    def _log(self, data: bytes) -> None:
        pass


def operate(
    place: Place, operation: dict[str, Any], out: Output, data: Iterator[bytes], work: str
) -> None:
    """Do what the request says. Raises OSError."""
    do, path = operation["do"], str(operation["path"])
    script = SCRIPTS.get(do)
    if script is None:
        raise OSError(errno.EOPNOTSUPP, f"{do} works below {work} alone in a unit")
    name = f"file-{os.urandom(8).hex()}"
    directory = f"{place.run}/commands/{name}"
    os.makedirs(directory, 0o700)
    os.mkfifo(f"{directory}/wake", 0o600)
    argv = ["/bin/sh", "-c", script, "sh", path]
    order = {"id": name, "title": "", "argv": argv, "env": {}, "cwd": "/", "user": ""}
    try:
        command = _Quiet(place, {**order, "stdin": do == "write", "timeout": SECONDS}, directory)
        if do == "write":
            threading.Thread(target=_feed, args=(place, name, directory, data), daemon=True).start()
        command.run()
        command.leave()
        _tell(ended(directory) or {}, directory, do, path, out, work)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _feed(place: Place, name: str, directory: str, data: Iterator[bytes]) -> None:
    """Give the command its stdin, once that is there."""
    while not place.has(f"commands/{name}/go"):
        if ended(directory):
            return
        threading.Event().wait(0.01)
    fifo = place.fifo(f"commands/{name}/in")
    os.set_blocking(fifo, True)
    have = 0
    with suppress(OSError):
        for piece in data:
            have += len(piece)
            while piece:
                piece = piece[os.write(fifo, piece) :]
    note_taken(directory, have, over=True)
    wake = os.open(f"{directory}/wake", os.O_RDWR | os.O_NONBLOCK)
    os.write(wake, b"\n")
    os.close(wake)
    os.close(fifo)


def _tell(
    state: dict[str, Any], directory: str, do: str, path: str, out: Output, work: str
) -> None:
    with open(f"{directory}/err", encoding="utf-8", errors="replace") as file:
        complaint = file.read()[-500:].strip()
    if state.get("exit_code") != 0 or state.get("timed_out"):
        number = next((n for text, n in ERRORS.items() if text in complaint), errno.EIO)
        if number == errno.EOPNOTSUPP:
            complaint += f"; a file below {work} needs no program of the image's"
        raise OSError(number, complaint or f"exit code {state.get('exit_code')}")
    if state["truncated"]:
        raise OSError(errno.EFBIG, f"it is too large for here: copy it below {work}")
    with open(f"{directory}/out", "rb") as output:
        if do == "read":
            out.write(output.read())
        elif do in ("stat", "list"):
            for line in output:
                out.write(_document(line.decode(errors="surrogateescape").rstrip("\n"), do, path))


def _document(line: str, do: str, path: str) -> bytes:
    """A line of `stat` as the document of an entry."""
    mode, size, modified, name = line.split(" ", 3)
    full = os.path.join(path, name) if do == "list" else path
    document = {
        "name": os.path.basename(full.rstrip("/")) or "/",
        "path": full,
        "kind": KINDS.get(stat.S_IFMT(int(mode, 16)), "other"),
        "size": int(size),
        "mode": stat.S_IMODE(int(mode, 16)),
        "modified": float(modified),
    }
    return json.dumps(document).encode() + b"\n"
