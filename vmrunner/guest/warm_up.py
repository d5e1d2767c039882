"""A rehearsal of a build's start, in a process that waits to be given one.

A process that was forked copies each page that it writes to for the first time, and an emulated VM
translates all code that it never ran: both take longer than the work itself. So it does once, on
files of its own, what a build does until its first line.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys

from .container_files import fill_box
from .prestart import READY, leave_room
from .sandbox_commands import SCRIPT
from .socket_answers import Obey, answer, open_files, tidy
from .state import EventLog, Place

SHAPE = {"container": "", "runtime": "runc", "network": "none", "log_bytes": 1 << 20}
JOB = {
    **SHAPE,
    "build": "rehearsal",
    "attempt": "rehearsal/1",
    "docker": False,
    "privileged": False,
    "timeout": 1.0,
    "env": {"CI": "true"},
    "secrets": {},
    "steps": [{"script": ":\n", "env": {}, "timeout": None}],
    "sandbox": True,
    "due": [0.0, 0.0],
}


def rehearse(place: Place, obey: Obey) -> None:
    """Rehearse it. Where that fails, as on a disk that is full, the build takes longer: a process
    that ended of it would take along what it was given to do meanwhile."""
    run = f"{place.run}/rehearsal-{os.getpid()}"
    files, stdin = open_files(), os.dup(0)
    try:
        _rehearse(Place(run, f"{run}/lib"), obey)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no build's
        print(f"no rehearsal: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os.dup2(stdin, 0)
        tidy(files)
        shutil.rmtree(run, ignore_errors=True)


def _rehearse(place: Place, obey: Obey) -> None:
    place.make()
    fill_box(place, JOB)
    place.write(READY, json.dumps({"shape": SHAPE, "pid": os.getpid(), "id": "none"}))
    for name in (place.prestarting, f"{place.box}/{SCRIPT}"):  # they say that a container waits
        with open(name, "a"):
            pass
    leave_room(place)
    os.write(place.fifo("control"), b"ready\n")  # stays while it is open
    os.write(place.fifo("log"), b"\n")
    _order(place, obey)


def _order(place: Place, obey: Obey) -> None:
    """Have a connection give the job, and hear how it ended."""
    job = json.dumps(JOB).encode()
    words = ["start", "--epoch", "1", "0", "0"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(json.dumps({"words": words, "stdin": len(job)}).encode() + b"\n" + job)
        ours.shutdown(socket.SHUT_WR)
        answer(theirs, place, place.run, lambda: EventLog(place.events).add("ended", 1), obey)
        output = ours.recv(1 << 16)
    if not output.endswith(b"X 0 0\n"):
        raise OSError(output.decode())
