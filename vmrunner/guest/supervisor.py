"""The commands that vmrunner gives over SSH. Each names the epoch of who asks.

    unpack  --epoch E [--gzip]                     a tar on stdin becomes the work directory
    start   --epoch E OFFSET SEEN                  a job on stdin; starts it once, then follows it
    follow  --epoch E OFFSET SEEN                  see follow.py
    cancel  --epoch E REASON                       TERM, later KILL; the end comes as an event
    collect --epoch E [--gzip]                     globs on stdin; a JSON line, then a tar
    status  --epoch E                              one JSON line
    run                                            the systemd unit itself

Exit codes: 2 artifacts that cannot be packed, 3 a stale epoch, 4 the log is shorter than OFFSET,
5 the supervisor died, 6 this VM has started another attempt, 1 anything else, with a line on
stderr.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from .state import EventLog, Place, Stale

WORK = "/work"
STALE = 3
OTHER_ATTEMPT = 6
UNCOLLECTED = 2  # as tar says it: 1 is only a file that changed while it was read
UNIT = "vmrunner-build"
INPUT = 32 << 20  # bytes of a job at most
# Loaded before any step starts.
NO_METADATA = "metadata.nft"


def main(argv: list[str], place: Place | None = None, work: str = WORK) -> int:
    """`place` and `work` are the VM's unless somebody runs us elsewhere."""
    place = place or Place()
    command, arguments = (argv[0], argv[1:]) if argv else ("", [])
    if command == "run":
        from .build import run

        return run(place, work=work)
    try:
        if command not in COMMANDS or arguments[:1] != ["--epoch"]:
            print(__doc__, file=sys.stderr)
            return 1
        place.make()
        ask = Ask(place, int(arguments[1]), arguments[2:], work)
        place.admit(ask.epoch)
        return COMMANDS[command](ask)
    except Stale as error:
        print(error, file=sys.stderr)
        return STALE
    except (OSError, ValueError, IndexError, KeyError) as error:
        print(f"{command}: {type(error).__name__}: {error}"[:2000], file=sys.stderr)
        return 1


class Ask:
    """One command: who asks, for what, where."""

    def __init__(self, place: Place, epoch: int, arguments: list[str], work: str) -> None:
        self.place = place
        self.epoch = epoch
        self.work = work
        self.gzip = ["--gzip"] if "--gzip" in arguments else []
        self.arguments = [word for word in arguments if word != "--gzip"]


def unpack(ask: Ask) -> int:
    """Replace the work directory by a tar on stdin, until a job came that needs it."""
    if ask.place.was_started() or ask.place.job():
        return OTHER_ATTEMPT
    wake_docker()
    run("rm", "-rf", ask.work)
    os.makedirs(ask.work, 0o755)
    tar = ["tar", "--extract", *ask.gzip, "--no-same-owner", "--directory", ask.work]
    return os.execvp(tar[0], tar)


def start(ask: Ask) -> int:
    """Start the job on stdin unless it was started; follow it."""
    place = ask.place
    job = json.loads(sys.stdin.buffer.read(INPUT))
    was = place.was_started()
    with place.locked():
        known = place.job()
        other = {was, known.get("attempt", "")} - {"", job["attempt"]}
        if other or (was and not known):
            print(f"this VM has started attempt {was or other}", file=sys.stderr)
            return OTHER_ATTEMPT
        if not known:
            prepare(place, job, ask.work)
    lock = place.alive()
    if lock is not None:  # no `run` lives; where the steps ran already it only says so
        os.close(lock)
        launch()
    return follow(ask)


def prepare(place: Place, job: dict[str, Any], work: str) -> None:
    """Prepare all that a build needs in this VM, before anything of it runs."""
    from . import userns as remap
    from .container_files import fill_box

    wake_docker()
    here = os.path.dirname(__file__)
    run("nft", "-f", os.path.join(here, NO_METADATA))
    os.makedirs(work, 0o755, exist_ok=True)
    owner = remap.root(job)
    if owner is not None:
        run("chown", "-hR", f"{owner}:{owner}", work)
    size = int(str(job["log_bytes"])) + (4 << 20)
    if not os.path.ismount(place.spool):
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "vmrunner", place.spool)
    fill_box(place, job, os.path.join(here, "driver.sh"))
    if job["runtime"] != "runc" and not os.path.ismount(place.shown):
        run("mount", "-o", "bind,ro", place.box, place.shown)
    place.write("job.json", json.dumps(job))


def launch() -> None:
    """Let systemd run us. When the unit is there already somebody else was faster."""
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


def follow(ask: Ask) -> int:
    from .follow import Follower

    if not ask.place.job():
        print("nothing was started here", file=sys.stderr)
        return 1
    offset, seen = map(int, ask.arguments)
    return Follower(ask.place, epoch=ask.epoch, offset=offset, seen=seen).run()


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
    print(json.dumps({"started": ask.place.was_started(), "ended": ended}))
    return 0


def collect(ask: Ask) -> int:
    """Print how many files each glob matches, as one JSON line; then write a tar of them."""
    from .artifact_globs import TooMuch, find

    try:
        counts, names = find(ask.work, json.loads(sys.stdin.buffer.read(INPUT)))
        listing = f"{ask.place.run}/artifacts"
        with open(listing, "wb") as file:
            file.writelines(b"./" + os.fsencode(name) + b"\0" for name in names)
    except (TooMuch, OSError) as error:
        print(error, file=sys.stderr)
        return UNCOLLECTED
    os.write(1, json.dumps(counts).encode() + b"\n")
    tar = ["tar", "--create", *ask.gzip, "--hard-dereference", f"--directory={ask.work}"]
    return os.execvp(tar[0], [*tar, "--null", "--verbatim-files-from", f"--files-from={listing}"])


def wake_docker() -> None:
    """dockerd takes seconds to start: let it do so beside what comes first."""
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
