"""A container that waits for its build: made and started ahead, its driver at its first question.

Its limits, runtime and image are those of a *shape*: {"container", "runtime", "network",
"log_bytes"}. A build of that very shape gets it, any other a container of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from . import syscalls
from .container_files import fill_box
from .state import ContainerError, Place

if TYPE_CHECKING:
    from .command_io import Request
    from .runtime import Runtime

SHAPE = ("container", "runtime", "network")  # and "log_bytes", at least
READY = "prestarted"  # the file: shape and first process of the container; {}: there is none
NOBODY = "\0" * 256  # longer than the name of an attempt
DRIVER_TIMEOUT = 120.0  # seconds
SOCKET_TIMEOUT = 120.0  # seconds
REHEARSAL = '. "$here/env"\n/bin/sh -ec : 3>&- 4>&-\necho ready >&3\n'


def obey(request: Request) -> int:
    """Let a container of the shape on stdin wait for its build. Returns the exit code."""
    from .command_io import received

    try:
        prestart(request.place, json.loads(received()), request.work)
        rehearse(request.place)
    except ContainerError as error:
        request.out.complain(str(error))
        return 1
    return 0


COMMANDS = {"prestart": obey}


def prestart(place: Place, shape: dict[str, Any], work: str) -> None:
    """Make the container and wait until its driver asks. One at a time; again is harmless."""
    from .sandbox_commands import make_room

    with _one_at_a_time(place):
        if place.read(READY) or place.job():  # there is one, or a build came first
            return
        job = {**shape, "build": "", "docker": False, "privileged": False, "env": {}, "steps": []}
        runtime = place.runtime
        runtime.lay_out(place, job, work)
        make_room(place)
        fill_box(place, {**job, "secrets": {}})
        _await_runtime(runtime)
        runtime.create(job, place, work)
        runtime.start(place)
        name, pid = runtime.first(place)
        ready = {"shape": shape, "pid": pid, "id": name}
        with _fifo(place, "control") as control:
            _await(control)
        leave_room(place)
        place.write(READY, json.dumps(ready))


def prestart_meanwhile(place: Place, shape: dict[str, Any], work: str) -> None:
    """Do it in a process of its own. Where nothing comes of it the build makes its container."""
    if place.read(READY):
        return
    with open(place.prestarting, "a"):  # a build that comes first says so there
        pass
    if os.fork():
        return
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        os.closerange(3, 1024)  # who asked waits for the end of what it hears
        prestart(place, shape, work)
    finally:
        os._exit(0)


def rehearse(place: Place) -> None:
    """Have the driver that waits run a step that does nothing. All that a build's first step needs
    has then happened once in this VM, which matters most where it is emulated."""
    with _one_at_a_time(place):
        if place.job() or not json.loads(place.read(READY) or "{}"):
            return
        leave_room(place)  # where a clone's disk is written to for the first time
        os.makedirs(f"{place.box}/commands/rehearsal", exist_ok=True)
        with open(f"{place.box}/commands/rehearsal/run.sh", "w", encoding="utf-8") as file:
            file.write(REHEARSAL)
        with _fifo(place, "control") as control, _fifo(place, "answers") as answers:
            os.read(control, 4096)  # its question, which it asks again
            os.write(answers, b"command rehearsal\n")
            _await(control)


def leave_room(place: Place) -> None:
    """Have room on the disk for who claims the VM: to make a new file safe takes several times as
    long as to write to one."""
    place.claim(NOBODY)


@contextmanager
def _fifo(place: Place, name: str) -> Iterator[int]:
    fd = place.fifo(name)
    try:
        yield fd
    finally:
        os.close(fd)


def _await(control: int) -> None:
    """Wait until the driver asks."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    if not poll.poll(DRIVER_TIMEOUT * 1000):
        raise OSError("the driver asks nothing")


def take(place: Place, job: dict[str, Any]) -> int:
    """The first process of the container that waits for such a job; 0: there is none. One of
    another shape is removed, and one that died while it waited."""
    with _one_at_a_time(place):
        ready = json.loads(place.read(READY) or "{}")
        if ready and _fits(ready["shape"], job) and os.path.exists(f"/proc/{ready['pid']}"):
            job["container_id"] = ready["id"]  # Docker would take long to say it
            return int(ready["pid"])
        try:
            place.runtime.remove()
        except ContainerError as error:
            if error.status != 404:  # else the build would run in it
                raise
        with suppress(OSError):
            syscalls.unmount(place.spool)
        place.write(READY, "{}")  # none is made after that: it would get into the build's way
    return 0


def _fits(shape: dict[str, Any], job: dict[str, Any]) -> bool:
    """True if the container that waits is what this job would get."""
    if job["docker"] or job["privileged"] or job["log_bytes"] > shape["log_bytes"]:
        return False
    return all(job[name] == shape[name] for name in SHAPE)


def _await_runtime(runtime: Runtime) -> None:
    """Early in a boot systemd does not listen for dockerd yet."""
    until = time.monotonic() + SOCKET_TIMEOUT
    while not runtime.is_there() and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def _one_at_a_time(place: Place) -> Iterator[None]:
    fd = os.open(place.prestarting, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
