"""Commands of the supervisor about those of a sandbox.

exec [OUT ERR]            a command on stdin, as JSON; starts it once, and follows it where
                          offsets are given
signal ID NUMBER          to all its processes
input ID OFFSET [end]     bytes on stdin, for its stdin; "end": the last
commands                  a JSON line for each
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from contextlib import suppress
from typing import Any

from .command import READ, Command
from .command_follower import CallerSink, follow
from .command_io import Request, received
from .command_records import (
    ALL,
    AT_ONCE,
    SPARE,
    directory,
    end,
    ended,
    known,
    lives,
    make,
    note_taken,
    running,
    taken,
)
from .container_files import own
from .port_forward import forward
from .sandbox_files import operate
from .state import Place

OTHER_ORDER = 7  # exit codes of ours
TOO_MANY = 8
UNKNOWN = 9
NO_INPUT = 12
AHEAD = 13
SCRIPT = "sandbox.sh"
LOOK_PAUSE = 0.02  # seconds between looks for what a command does next


def lay_out(place: Place) -> None:
    """Prepare what commands need, before the container asks for its build."""
    if not place.has(SCRIPT):
        make_room(place)
    place.rename(SCRIPT, "sandbox")


def make_room(place: Place) -> None:
    """Make the directories of commands, and leave their script ready. A container that waits has
    them: to start a program takes a tenth of a second in an emulated VM."""
    place.make_directory("commands")
    os.makedirs(f"{place.run}/running", 0o700, exist_ok=True)
    commands = f"{place.run}/commands"
    os.makedirs(commands, 0o700, exist_ok=True)
    place.runtime.make_volume(commands, ALL + AT_ONCE * SPARE)
    place.put(f"{SCRIPT}.new", own(SCRIPT))
    place.rename(f"{SCRIPT}.new", SCRIPT)  # last: it says that all is there


def start(request: Request) -> int:
    """Start the command on stdin, unless it was; follow it, where offsets are given."""
    place = request.place
    if not place.has("sandbox"):
        request.out.complain("no sandbox was started here")
        return UNKNOWN
    text = received()
    order = json.loads(text)
    path = directory(place, order["id"])
    with place.locked():
        if is_new := not os.path.exists(f"{path}/order"):
            if running(place) >= AT_ONCE:
                request.out.complain(f"{AT_ONCE} commands run already")
                return TOO_MANY
            alive = make(place, path, text)
    if is_new:
        return _run(request, order, path, alive)
    with open(f"{path}/order", "rb") as file:
        if file.read() != text:
            request.out.complain(f"command {order['id']} is another one")
            return OTHER_ORDER
    return follow(request, path) if request.arguments else 0


def _run(request: Request, order: dict[str, Any], path: str, alive: int) -> int:
    """Be the process of a command; where it is not followed, in a process of its own."""
    sink = None
    if request.arguments:
        out, err = map(int, request.arguments)
        sink = CallerSink(request.out, path, (out, err))
    elif os.fork():
        return 0
    else:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        os.dup2(alive, 3)
        os.closerange(4, 1024)  # who asked waits for the end of what it hears
    with suppress(PermissionError):
        os.setsid()
    try:
        _perform(request, order, path, sink)
        if sink is None:
            request.afterwards()
    finally:
        if sink is None:
            os._exit(0)  # whatever went wrong: nothing of who asked may go on here
    return 0


def _perform(request: Request, order: dict[str, Any], path: str, sink: CallerSink | None) -> None:
    command = None
    try:
        command = Command(request.place, order, path, sink)
        command.run()
        request.afterwards = command.leave
    except Exception as error:  # noqa: BLE001 - its followers must hear of it
        state = end(path, error=f"{type(error).__name__}: {error}"[:500])
        if command is not None:
            command.give_up()
        if sink is not None:
            sink.finish(state)


def attach(request: Request) -> int:
    """Follow a command that was started."""
    name, *offsets = request.arguments
    path = directory(request.place, name)
    if not os.path.exists(f"{path}/order"):
        request.out.complain(f"there is no command {name}")
        return UNKNOWN
    request.arguments = offsets
    return follow(request, path)


def send_signal(request: Request) -> int:
    """Send a signal to all processes of a command, once it has begun; KILL ends its shell too."""
    place = request.place
    path, number = directory(place, request.arguments[0]), int(request.arguments[1])
    if not os.path.exists(f"{path}/order"):
        request.out.complain(f"there is no command {request.arguments[0]}")
        return UNKNOWN
    while not ended(path):
        with suppress(FileNotFoundError):
            group = place.runtime.saved_group(place, f"{path}/group")
            break
        if not lives(path):
            return 0
        time.sleep(LOOK_PAUSE)
    else:
        return 0
    if number == signal.SIGKILL:
        group.kill()
    else:
        group.signal(number)
    return 0


def take_input(request: Request) -> int:
    """Give a command the bytes on stdin, which begin at that offset of its own stdin; with "end"
    they are the last."""
    name, offset = request.arguments[0], int(request.arguments[1])
    path = directory(request.place, name)
    if not os.path.exists(f"{path}/order"):
        request.out.complain(f"there is no command {name}")
        return UNKNOWN
    with open(f"{path}/order", "rb") as file:
        if not json.load(file)["stdin"]:
            request.out.complain(f"command {name} was started without a stdin")
            return NO_INPUT
    lock = os.open(f"{path}/input", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    have, over = taken(path)
    if ended(path):
        return 0  # it is not read: its end says all
    if offset > have:
        request.out.complain(f"its stdin is at byte {have}, not {offset}")
        return AHEAD
    pipe = _open_input(request.place, path)
    if pipe is None:
        return 0
    skip = have - offset
    while not over and (data := os.read(0, READ)):
        skip, data = max(0, skip - len(data)), data[skip:]
        while data:
            try:
                written = os.write(pipe, data)
            except BlockingIOError:
                if ended(path) or _has_left(request):
                    return 0  # it will not be read, or told more
                time.sleep(LOOK_PAUSE)
                continue
            data, have = data[written:], have + written
            note_taken(path, have, over=False)
    if "end" in request.arguments[2:] and not over:
        note_taken(path, have, over=True)
        wake = os.open(f"{path}/wake", os.O_RDWR | os.O_NONBLOCK)
        os.write(wake, b"\n")
    return 0


def _open_input(place: Place, path: str) -> int | None:
    """Return a command's stdin, once it is there; None: it has ended."""
    while not ended(path):
        with suppress(FileNotFoundError):
            return place.fifo(f"commands/{os.path.basename(path)}/in")
        if not lives(path):
            break
        time.sleep(LOOK_PAUSE)
    return None


def _has_left(request: Request) -> bool:
    """True if the caller has left."""
    poll = select.poll()
    poll.register(request.out.fd, 0)  # only errors
    return bool(poll.poll(0))


def list_commands(request: Request) -> int:
    """Print one JSON line for each command, the oldest first."""
    for path in known(request.place):
        with suppress(OSError), open(f"{path}/order", "rb") as file:
            order = json.load(file)
            document = {"id": order["id"], "title": order["title"][:200], "state": ended(path)}
            request.out.write(json.dumps(document).encode() + b"\n")
    return 0


COMMANDS = {
    "attach": attach,
    "file": operate,
    "forward": forward,
    "exec": start,
    "signal": send_signal,
    "input": take_input,
    "commands": list_commands,
}
