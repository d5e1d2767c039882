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
    resident                                       the process that answers on a socket: resident.py

Exit codes: 2 artifacts that cannot be packed, 3 a stale epoch, 4 the log is shorter than OFFSET,
5 the supervisor died, 6 this VM has started another attempt, 1 anything else, with a line on
stderr.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from . import docker
from .follow import Follower
from .output import Output
from .state import OTHER_ATTEMPT, EventLog, Place, Stale

WORK = "/work"
STALE = 3
UNCOLLECTED = 2  # as tar says it: 1 is only a file that changed while it was read
UNIT = "vmrunner-build"
INPUT = 32 << 20  # bytes of a job at most
STARTS = 20  # of `run` in the life of a VM
# Loaded before any step starts.
NO_METADATA = "metadata.nft"


def main(argv: list[str], place: Place | None = None, work: str = WORK) -> int:
    """`place` and `work` are the VM's unless a test names others."""
    place = place or Place()
    command = argv[0] if argv else ""
    if command == "run":
        return run_build(place, work=work)
    if command == "resident":
        from .resident import Resident

        return Resident(place, work).run()
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
    code, ask = 1, None
    try:
        handler = COMMANDS.get(command) or of_our_images(command)
        if handler is None or arguments[:1] != ["--epoch"]:
            out.complain(__doc__ or "")
        else:
            ask = Ask(place, int(arguments[1]), arguments[2:], work, out, launch)
            place.admit(ask.epoch)
            code = handler(ask)
    except Stale as error:
        out.complain(str(error))
        code = STALE
    except (OSError, ValueError, IndexError, KeyError) as error:
        out.complain(f"{command}: {type(error).__name__}: {error}"[:2000])
    try:
        out.end(code)
    finally:  # the caller may have gone
        if ask is not None:
            ask.afterwards()
    return code


class Ask:
    """One command: who asks, for what, where."""

    def __init__(
        self,
        place: Place,
        epoch: int,
        arguments: list[str],
        work: str,
        out: Output,
        launch: Callable[[], object],
    ) -> None:
        self.place = place
        self.epoch = epoch
        self.work = work
        self.out = out
        self.launch = launch
        self.afterwards: Callable[[], object] = lambda: None  # once its end was told
        self.gzip = ["--gzip"] if "--gzip" in arguments else []
        self.arguments = [word for word in arguments if word != "--gzip"]


def unpack(ask: Ask) -> int:
    """Replace the work directory by a tar on stdin, until a job came that needs it."""
    if ask.place.was_started() or ask.place.job():
        return OTHER_ATTEMPT
    if ask.arguments:
        with suppress(ModuleNotFoundError):  # in a stock image, whose user-data has no room
            from .prestart import prestart_meanwhile

            prestart_meanwhile(ask.place, json.loads(ask.arguments[0]), ask.work)
    wake_docker()
    os.makedirs(ask.work, 0o755, exist_ok=True)
    if os.listdir(ask.work):  # the directory itself may be mounted in a container that waits
        run("find", ask.work, "-mindepth", "1", "-delete")
    tar = ["tar", "--extract", *ask.gzip, "--no-same-owner", "--directory", ask.work]
    return ask.out.become(tar)


def start(ask: Ask) -> int:
    """Start the job on stdin unless it was started; follow it."""
    place = ask.place
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
            ask.out.complain(f"this VM started {was or other}")
            return OTHER_ATTEMPT
        if not previous:
            prepare(place, job, ask.work)
    lock = place.alive()
    if lock is not None:  # no `run` lives; where the steps ran already it only says so
        if job.get("prestarted") and not (was or job.get("caches")):
            from .opening import open_and_follow

            return open_and_follow(ask, lock)
        os.close(lock)
        ask.launch()
    return follow(ask)


def prepare(place: Place, job: dict[str, Any], work: str) -> None:
    """Prepare all that a build needs in this VM, before anything of it runs."""
    from . import userns as remap
    from .container_files import fill_box

    job["prestarted"] = 0
    if login := job.pop("registry_auth", ""):
        place.write("registry", login)
    if os.path.exists(place.prestarting):
        from .prestart import take

        job["prestarted"] = take(place, job)
    if not job["prestarted"]:
        lay_out(place, job, work)
    owner = remap.root(job)
    if owner is not None:
        run("chown", "-hR", f"{owner}:{owner}", work)
    fill_box(place, job)
    if job.get("sandbox"):
        from . import sandbox_commands

        sandbox_commands.lay_out(place)
    place.write("job.json", json.dumps(job))


def lay_out(place: Place, job: dict[str, Any], work: str) -> None:
    """Prepare what a container of this shape needs, whatever is to run in it."""
    wake_docker()
    run("nft", "-f", os.path.join(os.path.dirname(__file__), NO_METADATA))
    os.makedirs(work, 0o755, exist_ok=True)
    size = int(str(job["log_bytes"])) + (4 << 20)
    if not os.path.ismount(place.spool):
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "vmrunner", place.spool)
    if job["runtime"] != "runc" and not os.path.ismount(place.shown):
        run("mount", "-o", "bind,ro", place.box, place.shown)


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


def follow(ask: Ask, opening: Iterator[None] | None = None) -> int:
    if not ask.place.job():
        ask.out.complain("not started")
        return 1
    offset, seen = map(int, ask.arguments)
    written = None
    with suppress(ModuleNotFoundError):  # in a stock image, whose user-data has no room
        from .syscalls import watch

        written = watch(ask.place.spool)
    return Follower(
        ask.place, epoch=ask.epoch, offset=offset, seen=seen, out=ask.out, written=written
    ).run(opening)


def cancel(ask: Ask) -> int:
    """Leave the wish and wake the unit. The first wish stays."""
    if not ask.place.read("cancel"):
        ask.place.write("cancel", ask.arguments[0])
    fd = os.open(f"{ask.place.box}/control", os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"\n")
    return 0


def status(ask: Ask) -> int:
    """Print what was started here, and whether it ended, as one JSON line."""
    ended = bool(ask.place.job()) and EventLog(ask.place.events).last("ended") is not None
    ask.out.write(json.dumps({"started": ask.place.was_started(), "ended": ended}).encode())
    return 0


def collect(ask: Ask) -> int:
    """Print how many files each glob matches, as one JSON line; then write a tar of them."""
    from .artifact_globs import TooMuch, find

    try:
        counts, names = find(ask.work, json.loads(received()))
        listing = f"{ask.place.run}/artifacts"
        with open(listing, "wb") as file:
            file.writelines(b"./" + os.fsencode(name) + b"\0" for name in names)
    except (TooMuch, OSError) as error:
        ask.out.complain(str(error))
        return UNCOLLECTED
    ask.out.write(json.dumps(counts).encode() + b"\n")
    tar = ["tar", "--create", *ask.gzip, "--hard-dereference", f"--directory={ask.work}"]
    return ask.out.become([*tar, "--null", "--verbatim-files-from", f"--files-from={listing}"])


def of_our_images(command: str) -> Callable[[Ask], int] | None:
    """The handler of such a command. A stock image has none of them."""
    with suppress(ModuleNotFoundError):
        from . import caches, prestart, sandbox_commands

        return (sandbox_commands.COMMANDS | caches.COMMANDS | prestart.COMMANDS).get(command)
    return None


def received() -> bytes:
    """All of stdin."""
    with open(0, "rb", closefd=False) as file:
        return file.read(INPUT)


def wake_docker() -> None:
    """dockerd takes seconds to start: let it do so beside what comes first."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
        asking.connect(docker.SOCKET)  # systemd listens there, and no program starts for it
        return
    run("systemctl", "start", "--no-block", "docker.service", check=False)


def run(*argv: str, check: bool = True) -> None:
    """A program that must succeed; its complaint is ours."""
    import subprocess

    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"{argv[0]}: {done.stderr.strip()}")


COMMANDS = {
    "unpack": unpack,
    "start": start,
    "follow": follow,
    "cancel": cancel,
    "status": status,
    "collect": collect,
}
