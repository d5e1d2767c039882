"""Ways into the VM of a build or a sandbox: a command, at a terminal or without one, and its ports.

The process with the ledger opens them, with the key that the ledger has: to whoever uses them only
their bytes go. Any process may that reaches the VM, whoever drives its build."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmrunner.core.boxes import KNOWN_AGAIN, SHELL
from vmrunner.errors import Conflict, NotFound, SandboxOver, VmrunnerError
from vmrunner.guest.port_forward import REFUSED
from vmrunner.guest.supervisor import STALE
from vmrunner.lib.secret_patterns import SecretPatterns
from vmrunner.model import DYING, BuildState, EventKind
from vmrunner.services.sandbox_terminal import START, command_words, output_after
from vmrunner.services.sandboxes import CONNECT, over
from vmrunner.session import supervisor_calls
from vmrunner.session.ssh import client

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.ledger import Ledger
    from vmrunner.lib.channels import Channel
    from vmrunner.model import Access, BuildRecord, Instance
    from vmrunner.session.ssh.command_channel import CommandChannel
    from vmrunner.session.ssh.port_channel import PortChannel

#: A shell of the VM's root, as at a login.
_LOGIN: Final = ("sh", "-c", 'exec "${SHELL:-/bin/sh}" -l')
TERMINAL: Final = "enter-terminal"  # verbs of actions
PORT: Final = "enter-port"


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryOrder:
    """A command for `open`; none: a shell. `container`: in the build's, else as the VM's root, to
    whom `env` and `cwd` mean nothing. `size`: columns and rows of its terminal; None: it gets
    none."""

    command: tuple[str, ...] = ()
    container: bool = False
    size: tuple[int, int] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/work"


class EnteredCommand:
    """A command that runs, with the connection that is its alone."""

    def __init__(
        self, connection: client.Connection, channel: CommandChannel, shown: bytes = b""
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._shown = shown  # before anybody took it
        self.ring, self.check, self.resize = channel.ring, channel.check, channel.resize
        self.send, self.end_input, self.signal = channel.send, channel.end_input, channel.signal
        self.take_stderr = channel.take_stderr

    @property
    def exit_code(self) -> int | None:
        """The exit code; None until it has come."""
        return self._channel.exit_code

    def take(self) -> bytes | None:
        """The output that is there; b"" at its end; None: there is none yet. Raises
        ConnectionLost."""
        if self._shown:
            shown, self._shown = self._shown, b""
            return shown
        return self._channel.take()

    def close(self) -> None:
        """Hang up: what runs at a terminal is told."""
        self._channel.close()
        self._connection.close()


class Entrance:
    """The way into one build's VM. Safe in threads; what it opens is independent of it. Each call
    raises Conflict, or SandboxOver of a sandbox, where there is no VM to enter."""

    def __init__(
        self,
        ledger: Ledger,
        build: str,
        *,
        channel: Callable[[Instance], Channel],
        box: Callable[[Instance], Box],
        reaches: Callable[[Instance], bool] = lambda _: True,
    ) -> None:
        """`channel`: the way to the sshd of its VM. `box`: who has its container. `reaches`:
        whether this host does."""
        self._ledger = ledger
        self.build = build
        self._channel = channel
        self._box = box
        self._reaches = reaches

    @property
    def secrets(self) -> SecretPatterns:
        """The build's secrets, to be masked."""
        return SecretPatterns(tuple(self._ledger.builds.secrets(self.build).values()))

    def current(self) -> tuple[BuildRecord, Instance]:
        """The build and its VM as they are now."""
        row = self._ledger.builds.get(self.build)
        instance, _ = vm_of(self._ledger, row)
        return row, instance

    def open(self, order: EntryOrder) -> EnteredCommand:
        """Start a command. Raises NotFound where the container has none of that name."""
        row, instance = self.current()
        with self._dialled(row, instance) as connection:
            return self._opened(connection, row, instance, order)

    def _opened(
        self, connection: client.Connection, row: BuildRecord, instance: Instance, order: EntryOrder
    ) -> EnteredCommand:
        mark = secrets.token_hex(16) if order.size is not None else ""
        if order.container:
            argv = command_words(order.command or SHELL, order.cwd, order.env, mark)
            held = row.state is BuildState.HELD
            words = self._box(instance).inside(argv, held=held, terminal=mark)
        else:
            words = list(order.command or _LOGIN)
        if order.size is None:
            return EnteredCommand(connection, connection.command(shlex.join(words), None))
        channel = connection.terminal(shlex.join(words), *order.size)
        shown = output_after(channel, mark) if order.container else b""
        return EnteredCommand(connection, channel, shown)

    def connect(self) -> PortConnection:
        """Open a connection on which many ports may be spoken to. The container of a build that is
        held is started again; what listened there is not."""
        row, instance = self.current()
        with self._dialled(row, instance) as connection:
            if row.state is BuildState.HELD:
                self._start_again(connection, row, instance)
            return PortConnection(connection, row)

    def _start_again(
        self, connection: client.Connection, row: BuildRecord, instance: Instance
    ) -> None:
        words = self._box(instance).inside(["true"], held=True, terminal="")
        for line in (words, ["sh", "-c", KNOWN_AGAIN]):
            done = connection.run(shlex.join(line), timeout=START)
            if done.exit_code:
                raise Conflict(f"the container of {row.id}: {done.complaint}")

    @contextmanager
    def _dialled(self, row: BuildRecord, instance: Instance) -> Iterator[client.Connection]:
        """A connection, which stays open unless something fails within."""
        connection = self._dial(row, instance)
        try:
            yield connection
        except client.ConnectionLost as error:
            connection.close()
            raise _silent(row, error) from None
        except BaseException:
            connection.close()
            raise

    def _dial(self, row: BuildRecord, instance: Instance) -> client.Connection:
        if not self._reaches(instance):
            raise Conflict(
                f"the VM of {row.id} is on {self._node(instance)}, and only that host reaches it",
                hint="enter it over that node's own address",
            )
        address = instance.address
        if address is None:
            raise Conflict(f"the VM of {row.id} has no address yet", hint="wait until it booted")
        access = vm_of(self._ledger, row)[1]
        try:
            return client.Dialer(access, channel=self._channel(instance)).connect(
                address, timeout=CONNECT
            )
        except client.Unreachable as error:
            self.current()
            raise _silent(row, error) from None

    def _node(self, instance: Instance) -> str:
        """Name the host of a local VM, as `vmrunner serve` shows it among the nodes."""
        for member in self._ledger.engines.list():
            if member.id == instance.owner:
                return f"node {member.id} of machine {member.process.machine}"
        return f"machine {instance.scope.account}"


class PortConnection:
    """An open connection to a VM, for its ports. Safe in threads."""

    def __init__(self, connection: client.Connection, row: BuildRecord) -> None:
        self._connection = connection
        self._place = row.instance, row.state is BuildState.HELD

    def serves(self, row: BuildRecord) -> bool:
        """True if it leads to the build's VM as it is now, as far as is known."""
        place = row.instance, row.state is BuildState.HELD
        return self._connection.is_open and self._place == place

    def port(self, row: BuildRecord, port: int) -> PortChannel:
        """Connect to a port of the container, on its own loopback. Raises Conflict; that nothing
        listens there is told by `refusal`."""
        words = ["forward", "--epoch", str(row.epoch), str(port)]
        try:
            return self._connection.port(supervisor_calls.SOCKET, words)
        except client.ConnectionLost as error:
            raise _silent(row, error) from None

    def close(self) -> None:
        self._connection.close()


def refusal(channel: PortChannel) -> VmrunnerError | None:
    """Return why the VM refused a connection to a port, once it has; None: it did not."""
    if channel.refusal is None or not channel.refusal[0]:
        return None
    code, complaint = channel.refusal
    text = client.Completed(code, b"", complaint).complaint
    if code == REFUSED:
        return NotFound(text, hint="is the service up, and does it listen on 127.0.0.1?")
    return Conflict(text, hint="the same again" if code == STALE else "")


def note(ledger: Ledger, actor: str, verb: str, build: str, detail: str) -> None:
    """Note an entry: as an action for ops, and as an event of the build."""
    now = time.time()
    ledger.actions.add(actor, verb, build, now, detail)
    ledger.events.add(build, EventKind.ENTERED, now, by=actor, what=verb.partition("-")[2])


def note_end(ledger: Ledger, actor: str, verb: str, build: str, detail: str) -> None:
    """Note that it is over."""
    ledger.actions.add(actor, f"leave-{verb.partition('-')[2]}", build, time.time(), detail)


def vm_of(ledger: Ledger, row: BuildRecord) -> tuple[Instance, Access]:
    """The VM of a build that can be entered, and the key to it. Raises Conflict, or SandboxOver of
    a sandbox."""
    kind = Conflict if row.spec.sandbox_ttl is None else SandboxOver
    if row.instance is None or row.finished:
        text = f"{row.id} has no VM: it is {row.state.value}"
        raise kind(text if kind is Conflict else over(row))
    instance = ledger.instances.get(row.instance)
    try:
        access = ledger.instances.access(instance.id)
    except NotFound:
        raise kind(f"the VM of {row.id} is {instance.state.value}") from None
    if instance.state in DYING:
        raise kind(f"the VM of {row.id} is {instance.state.value}")
    return instance, access


def _silent(row: BuildRecord, error: Exception) -> VmrunnerError:
    kind = Conflict if row.spec.sandbox_ttl is None else SandboxOver
    return kind(f"the VM of {row.id} does not answer: {error}")
