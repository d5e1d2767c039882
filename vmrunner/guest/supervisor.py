"""The commands that vmrunner gives over SSH. Each names the epoch of who asks.

    unpack  --epoch E [--gzip] [SHAPE]             a tar on stdin becomes the work directory; a
                                                   container of that shape is made meanwhile
    start   --epoch E OFFSET SEEN                  a job on stdin; starts it once, then follows it
    follow  --epoch E OFFSET SEEN                  see follow.py
    cancel  --epoch E REASON                       TERM, later KILL; the end comes as an event
    collect --epoch E [--gzip]                     globs on stdin; a JSON line, then a tar
    status  --epoch E                              one JSON line
    prestart --epoch E                             a container's shape on stdin; one waits then
    put_cache --epoch E N SIZE                     a tar on stdin, for the job's cache N
    get_cache --epoch E N                          the tar that was packed of it
    exec, attach, signal, input, commands          of a sandbox: sandbox_commands.py
    file, forward PORT                             … sandbox_files.py, port_forward.py
    run                                            the systemd unit itself
    resident                                       the process that answers on a socket: daemon.py

Exit codes: 2 artifacts that cannot be packed, 3 a stale epoch, 4 the log is shorter than OFFSET,
5 the supervisor died, 6 this VM has started another attempt, 1 anything else, with a line on
stderr.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .command_io import Output, Request, received
from .container_files import fill_box, run
from .follow import follow
from .state import OTHER_ATTEMPT, EventLog, Place, Stale

WORK = "/work"
STALE = 3
UNCOLLECTED = 2  # as tar says it: 1 is only a file that changed while it was read
UNIT = "vmrunner-build"
STARTS = 20  # of `run` in the life of a VM


def main(argv: list[str], place: Place | None = None, work: str = WORK) -> int:
    """`place` and `work` are the VM's unless a test names others."""
    place = place or Place()
    command = argv[0] if argv else ""
    if command == "run":
        return run_build(place, work=work)
    if command == "resident":
        from .daemon import Resident

        return Resident(place, work, obey, run_build).run()
    place.make()
    return obey(argv, place, work, Output(1), launch)


def run_build(place: Place, *, work: str) -> int:
    """The whole of `supervisor run`. Does nothing when another one is at it, nor after too many
    starts: one that dies each time is then seen to be dead by its followers."""
    from .build import GuestBuild

    for _ in range(20):  # others hold the lock for a moment to see whether we live
        lock = place.alive()
        if lock is not None:
            break
        time.sleep(0.1)
    else:
        return 0
    starts = int(place.read("starts") or 0) + 1
    if starts <= STARTS:
        place.write("starts", str(starts))
        GuestBuild(place, work=work).run()
    os.close(lock)
    return 0


def obey(
    argv: list[str], place: Place, work: str, out: Output, launch: Callable[[], object]
) -> int:
    """Do what one command says and return its exit code. `launch`: starts the supervisor of the
    build, `run`."""
    command, arguments = (argv[0], argv[1:]) if argv else ("", [])
    code, request = 1, None
    try:
        handler = place.commands.get(command) or COMMANDS.get(command) or of_our_images(command)
        if handler is None or arguments[:1] != ["--epoch"]:
            out.complain(__doc__ or "")
        else:
            request = Request(place, int(arguments[1]), arguments[2:], work, out, launch)
            place.admit(request.epoch)
            code = handler(request)
    except Stale as error:
        out.complain(str(error))
        code = STALE
    except (OSError, ValueError, IndexError, KeyError) as error:
        out.complain(f"{command}: {type(error).__name__}: {error}"[:2000])
    try:
        out.end(code)
    finally:  # the caller may have gone
        if request is not None:
            request.afterwards()
    return code


def unpack(request: Request) -> int:
    """Replace the work directory by a tar on stdin, until a job came that needs it."""
    if request.place.was_started() or request.place.job():
        return OTHER_ATTEMPT
    if request.arguments:
        with suppress(ModuleNotFoundError):  # in a stock image, whose user-data has no room
            from .prestart import prestart_meanwhile

            prestart_meanwhile(request.place, json.loads(request.arguments[0]), request.work)
    request.place.runtime.wake()
    os.makedirs(request.work, 0o755, exist_ok=True)
    if os.listdir(request.work):  # the directory itself may be mounted in a container that waits
        run("find", request.work, "-mindepth", "1", "-delete")
    tar = ["tar", "--extract", *request.gzip, "--no-same-owner", "--directory", request.work]
    return request.out.become(tar)


def start(request: Request) -> int:
    """Start the job on stdin unless it was started; follow it."""
    place = request.place
    job = json.loads(received())
    due = job.pop("due", None)
    was = place.was_started()
    with place.locked():
        if due is not None:
            from .identity import lower  # a VM of a pool has it, a stock image has not

            lower(place, *due)
        previous = place.job()
        other = {was, previous.get("attempt", "")} - {"", job["attempt"]}
        if other or (was and not previous):
            request.out.complain(f"this VM started {was or other}")
            return OTHER_ATTEMPT
        if not previous:
            prepare(place, job, request.work)
    lock = place.alive()
    if lock is not None:  # no `run` lives; where the steps ran already it only says so
        if job.get("prestarted") and not (was or job.get("caches")):
            from .direct_start import open_and_follow

            return open_and_follow(request, lock)
        os.close(lock)
        request.launch()
    return follow(request)


def prepare(place: Place, job: dict[str, Any], work: str) -> None:
    """Prepare all that a build needs in this VM, before anything of it runs."""
    from . import userns as remap

    job["prestarted"] = 0
    if login := job.pop("registry_auth", ""):
        place.write("registry", login)
    if os.path.exists(place.prestarting):
        from .prestart import take

        job["prestarted"] = take(place, job)
    if not job["prestarted"]:
        place.runtime.lay_out(place, job, work)
    owner = remap.root(job)
    if owner is not None:
        run("chown", "-hR", f"{owner}:{owner}", work)
    fill_box(place, job)
    if job.get("sandbox"):
        from . import sandbox_commands

        sandbox_commands.lay_out(place)
    place.write("job.json", json.dumps(job))


def launch() -> None:
    """Let systemd run the supervisor. When the unit is there already another call was faster."""
    run(
        "systemd-run",
        f"--unit={UNIT}",
        "--quiet",
        "--no-block",
        "--collect",
        "--expand-environment=no",
        "--property=Restart=on-failure",
        "--property=RestartSec=0.5",
        "--property=StartLimitBurst=20",
        "--property=OOMScoreAdjust=-1000",
        "--property=CPUWeight=1000",
        "/usr/lib/vmrunner/supervisor",
        "run",
        check=False,
    )


def cancel(request: Request) -> int:
    """Leave the wish and wake the unit. The first wish stays."""
    place = request.place
    if not place.read("cancel"):
        place.write("cancel", request.arguments[0])
    os.write(place.fifo("control"), b"\n")
    return 0


def status(request: Request) -> int:
    """Print what was started here, and whether it ended, as one JSON line."""
    place = request.place
    ended = bool(place.job()) and EventLog(place.events).last("ended") is not None
    request.out.write(json.dumps({"started": place.was_started(), "ended": ended}).encode())
    return 0


def collect(request: Request) -> int:
    """Print how many files each glob matches, as one JSON line; then write a tar of them."""
    from .artifact_globs import BadGlobs, find

    try:
        counts, names = find(request.work, json.loads(received()))
        listing = f"{request.place.run}/artifacts"
        with open(listing, "wb") as file:
            file.writelines(b"./" + os.fsencode(name) + b"\0" for name in names)
    except (BadGlobs, OSError) as error:
        request.out.complain(str(error))
        return UNCOLLECTED
    request.out.write(json.dumps(counts).encode() + b"\n")
    tar = ["tar", "--create", *request.gzip, "--hard-dereference", f"--directory={request.work}"]
    return request.out.become([*tar, "--null", "--verbatim-files-from", f"--files-from={listing}"])


def of_our_images(command: str) -> Callable[[Request], int] | None:
    """The handler of such a command. A stock image has none of them."""
    with suppress(ModuleNotFoundError):
        from . import caches, prestart, sandbox_commands

        return (sandbox_commands.COMMANDS | caches.COMMANDS | prestart.COMMANDS).get(command)
    return None


COMMANDS = {work.__name__: work for work in (unpack, start, follow, cancel, status, collect)}
