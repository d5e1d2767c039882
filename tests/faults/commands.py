"""Commands of a sandbox in a fault world: a played supervisor that speaks the real protocol, and
callers, each a process of its own that uses the real client.

Checked of each command: it is started once in its VM, an exit code comes from its end alone and
after the whole of both streams, and who gets none is told so because the sandbox is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.faults.broken import Broken
from tests.faults.tasks import Crash, Task
from vmrunner.errors import NotFound, SandboxOver
from vmrunner.guest import sandbox_commands
from vmrunner.guest.supervisor import STALE
from vmrunner.lib.channels import TCP
from vmrunner.model import (
    BuildRecord,
    BuildState,
    CommandEnd,
    CommandOrder,
    InstanceState,
    Power,
    StreamName,
)
from vmrunner.services.sandboxes import SandboxClient
from vmrunner.session.ssh.client import Completed, ConnectionLost, Unreachable

if TYPE_CHECKING:
    from tests.faults.cloud_side import CloudResource
    from tests.faults.node import Guest
    from tests.faults.world import World
    from vmrunner.model import Instance

LINES = 8  # of a command, on each stream
CODE = 7


def written(name: str, stream: StreamName, share: float = 1.0) -> bytes:
    """What a command has written after that share of its time."""
    lines = range(int(LINES * min(share, 1.0)))
    return b"".join(f"{name} {stream.value} {number}\n".encode() for number in lines)


@dataclass
class PlayedCommands:
    """The commands of one VM, by id: what was asked for, and when."""

    orders: dict[str, bytes] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)

    def share(self, name: str, now: float) -> float:
        """How much of its time has gone by."""
        seconds = float(json.loads(self.orders[name])["argv"][1])
        return (now - self.began[name]) / seconds


class PlayedConnection:
    """A connection to the supervisor of one VM."""

    def __init__(self, world: World, guest: Guest) -> None:
        self._world, self._guest = world, guest

    def ask(
        self,
        _path: str,
        words: Sequence[str],
        stdin: bytes,
        on_bytes: Callable[[bytes], object],
        *,
        pulse: Callable[[], float],
    ) -> Completed:
        """One command of the supervisor."""
        self._reach()
        command, epoch, rest = words[0], int(words[2]), list(words[3:])
        if epoch < self._guest.highest:
            return _refusal(STALE, "a stale epoch")
        self._guest.highest = epoch
        commands = self._guest.commands
        if command == "exec":
            name = json.loads(stdin)["id"]
            if name not in commands.orders:
                commands.orders[name] = stdin
                commands.began[name] = self._world.clock()
            self._reach()  # heard, and the answer may be lost
            if commands.orders[name] != stdin:
                return _refusal(sandbox_commands.OTHER_ORDER, "another command")
        else:
            name = rest.pop(0)
            if name not in commands.orders:
                return _refusal(sandbox_commands.UNKNOWN, "unknown")
        if not rest:
            return Completed(0, b"", b"")
        return self._follow(name, epoch, [int(word) for word in rest], on_bytes, pulse)

    def _follow(
        self,
        name: str,
        epoch: int,
        offsets: list[int],
        on_bytes: Callable[[bytes], object],
        pulse: Callable[[], float],
    ) -> Completed:
        while True:
            share = self._guest.commands.share(name, self._world.clock())
            streams = [written(name, stream, share) for stream in StreamName]
            for number, (kind, data) in enumerate(zip(b"OR", streams, strict=True)):
                if new := data[offsets[number] :]:
                    on_bytes(b"%c %d %d\n" % (kind, offsets[number], len(new)) + new)
                    offsets[number] = len(data)
            if share >= 1.0:
                sizes = dict(zip(("out", "err"), map(len, streams), strict=True))
                text = json.dumps({"exit_code": CODE, "seconds": 1.0, **sizes}).encode()
                on_bytes(b"E %d\n" % len(text) + text)
                return Completed(0, b"", b"")
            pulse()
            Task.here.task.pause()
            self._reach()
            if self._guest.highest > epoch:
                return _refusal(STALE, "a caller with a higher epoch speaks here")

    def _reach(self) -> None:
        """Raises ConnectionLost when the VM does not answer, or the world breaks it off."""
        world = self._world
        dropped = world.drops is not None and world.drops()
        if dropped or not reachable(world, self._guest.machine):
            raise ConnectionLost("the world broke it off")

    @property
    def is_open(self) -> bool:
        return reachable(self._world, self._guest.machine)

    def close(self) -> None:
        """Nothing is kept of it."""


def _refusal(code: int, text: str) -> Completed:
    return Completed(code, b"", text.encode())


class Caller:
    """A process that has some commands run, each for so many seconds, and follows them side by
    side. `polls`: as over HTTP, where each request gives offsets; else it follows at once."""

    def __init__(
        self, world: World, build: BuildRecord, commands: Mapping[str, float], *, polls: bool
    ) -> None:
        self.world, self.build, self.polls = world, build, polls
        self.dead = False
        self.ends: dict[str, CommandEnd | None] = {}  # None: the sandbox was over
        self._client = SandboxClient(
            world.truth,
            build.id,
            lambda _: TCP,
            connect=self._connect,
            clock=world.clock,
            sleep=_rest,
        )
        self._tasks = [Task(self, partial(self._call, *command)) for command in commands.items()]

    @property
    def ended(self) -> bool:
        return all(task.ended for task in self._tasks)

    def step(self) -> None:
        """Let each go on."""
        for task in self._tasks:
            task.step()

    def check(self) -> None:
        if self.dead:
            raise Crash

    def kill(self) -> None:
        """kill -9. What it had started runs on."""
        self.dead = True
        self.step()

    def _connect(self, instance: Instance) -> Any:
        machine = self.world.cloud.machines.get(instance.ref) if instance.ref else None
        if machine is None or not reachable(self.world, machine):
            raise Unreachable("nobody answers there")
        return PlayedConnection(self.world, self.world.guest(machine))

    def _call(self, name: str, seconds: float) -> None:
        while self._state() not in (None, BuildState.RUNNING, BuildState.FINISHED):
            _rest()
        order = CommandOrder(id=name, argv=("sleep", str(seconds)), title="sleep")
        streams = dict.fromkeys(StreamName, b"")

        def keep(stream: StreamName, data: bytes) -> None:
            streams[stream] += data

        try:
            end = self._polled(order, keep) if self.polls else self._client.run(order, keep)
        except (SandboxOver, NotFound) as error:
            self.ends[name] = None
            self._check_over(name, error)
            return
        self.ends[name] = end
        whole = {stream: written(name, stream) for stream in StreamName}
        if end.exit_code != CODE or streams != whole:
            raise Broken(f"6 no forgotten line: {name} ended with {end}, {streams}")

    def _polled(
        self, order: CommandOrder, keep: Callable[[StreamName, bytes], object]
    ) -> CommandEnd:
        self._client.start(order)
        out = err = 0
        while True:
            found = self._client.read(order.id, out, err, wait=3.0)
            keep(StreamName.STDOUT, found.stdout)
            keep(StreamName.STDERR, found.stderr)
            out, err = found.next_stdout, found.next_stderr
            if found.end is not None:
                return found.end
            _rest()

    def _state(self) -> BuildState | None:
        try:
            return self.world.truth.builds.get(self.build.id).state
        except NotFound:
            return None  # the ledger was lost

    def _check_over(self, name: str, error: Exception) -> None:
        """Nobody is told so of a sandbox that is there."""
        if self._state() is not BuildState.RUNNING:
            return
        row = self.world.truth.builds.get(self.build.id)
        instance = self.world.truth.instances.get(row.instance or "")
        machine = self.world.cloud.machines.get(instance.ref) if instance.ref else None
        dies = instance.state in (InstanceState.DELETING, InstanceState.GONE)
        if machine is not None and reachable(self.world, machine) and not dies:
            raise Broken(f"6 no forgotten line: {name} was given up: {error}")


def reachable(world: World, machine: CloudResource) -> bool:
    """True if its supervisor answers."""
    world.cloud.settle()
    runs = machine.power is not Power.DEAD and not machine.stopped and not machine.hung
    return runs and not world.is_off(machine.ref.scope)


def _rest(_seconds: float = 0.0) -> None:
    """Let a step of the world go by."""
    Task.here.task.pause()
