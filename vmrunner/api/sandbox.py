"""Sandbox, the API's handle: a VM with a container in which commands are run one by one."""

from __future__ import annotations

import builtins
import codecs
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from vmrunner.api.build import Build
from vmrunner.api.errors import BuildLost
from vmrunner.api.keywords import SandboxOptions, sandbox_request
from vmrunner.api.port_forward import PortForward
from vmrunner.api.runner import Runner
from vmrunner.api.sandbox_files import DISK, SandboxFiles
from vmrunner.api.sandbox_process import SandboxProcess
from vmrunner.api.terminal import Terminal, checked_size
from vmrunner.config import field_checks
from vmrunner.core.boxes import SHELL
from vmrunner.errors import ConfigError, Conflict, SandboxOver, VmrunnerError
from vmrunner.lib import ids, units
from vmrunner.model import BuildState, CommandEnd, CommandOrder, Result, StreamName

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.services.protocols import SandboxAccess

Duration = units.Duration
OnText = Callable[[str], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """A command that ended. `timed_out`: at its timeout; `truncated`: it wrote more than is kept
    of a stream (8 MiB)."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    timed_out: bool = False
    truncated: bool = False
    seconds: float = 0.0

    @property
    def stdout(self) -> str:
        """Output as text: UTF-8, with invalid bytes replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Error output as text: UTF-8, with invalid bytes replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")


class CommandFailed(VmrunnerError):
    """A command with another exit code than 0, or past its timeout, that was run with `check`.
    `result`: its output and exit code."""

    def __init__(self, title: str, result: CommandResult) -> None:
        how = "timed out" if result.timed_out else f"exit code {result.exit_code}"
        lines = result.stderr.strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        super().__init__(f"{title[:80]}: {how}{last}", hint="its output: error.result")
        self.result = result
        self._title = title

    def __reduce__(self) -> tuple[type[Self], tuple[str, CommandResult]]:
        """A pool of processes breaks at an error that cannot be made anew."""
        return type(self), (self._title, self.result)


class Sandbox:
    """A sandbox: a VM with a container in which commands run one by one. Made by `create` or
    `connect`. The end of a `with` kills it. Each call raises `BuildLost` if its VM died, and
    `SandboxOver` once it has ended otherwise."""

    def __init__(self, build: Build, runner: Runner, *, own_runner: bool = True) -> None:
        self._build = build
        self._runner = runner
        self._own_runner = own_runner
        self._client: SandboxAccess = runner.service.sandbox(build.id)
        self._forwards: builtins.list[PortForward] = []
        self.files = SandboxFiles(self._client, self.translated)

    def __repr__(self) -> str:
        return f"<Sandbox {self.id}>"

    @classmethod
    def create(
        cls,
        *,
        owned: bool = False,
        wait_timeout: Duration | None = None,
        runner: Runner | None = None,
        settings: Settings | None = None,
        **options: Unpack[SandboxOptions],
    ) -> Self:
        """Start a sandbox and wait until it is ready. By default it has no network, and lives for
        15 minutes (`ttl`); `extend` prolongs that up to `max_ttl`. `options`: those of a build
        that are not about steps.

        A sandbox outlives this process, unless it is `owned`. Raises `ConfigError` for an option
        that cannot be used, `BuildLost` if no VM could be started, and `NotFinished` if it is not
        ready within `wait_timeout`; it is cancelled then."""
        seconds = None if wait_timeout is None else units.duration(wait_timeout, "wait_timeout")
        field_checks.flag(owned, "owned")
        mine = runner is None
        runner = runner or Runner(settings=settings)
        try:
            build = runner.enter_sandbox(sandbox_request(options), owned=owned, timeout=seconds)
            return cls(build, runner, own_runner=mine)
        except BaseException:
            if mine:
                runner.close()
            raise

    @classmethod
    def connect(cls, sandbox: str, *, runner: Runner | None = None) -> Self:
        """Connect to a running sandbox, by its id, the start of its id, or its name. The end of a
        `with` kills it all the same. Raises `NotFound`, `SandboxOver`."""
        mine = runner is None
        runner = runner or Runner()
        try:
            return cls(_usable(runner.get(sandbox)), runner, own_runner=mine)
        except BaseException:
            if mine:
                runner.close()
            raise

    @staticmethod
    def list(
        *, labels: Mapping[str, str] | None = None, runner: Runner | None = None
    ) -> builtins.list[Build]:
        """Return the running sandboxes that have all of these `labels`, newest first."""
        with contextmanager(_given)(runner) as client:
            found = client.list(active=True, labels=labels, limit=None)
            return [build for build in found if build.spec.sandbox_ttl is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.kill()
        finally:
            self.close()

    @property
    def id(self) -> str:
        """Id, as of a build."""
        return self._build.id

    @property
    def runner(self) -> Runner:
        """The `Runner` through which it is reached."""
        return self._runner

    # --- commands ---

    def run(
        self,
        command: str | Sequence[str],
        /,
        *,
        timeout: Duration | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/work",
        user: str | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        check: bool = False,
    ) -> CommandResult:
        """Run a command and return its output and exit code. A string is a shell line, a list is
        one command. It runs as root, or as `user`. `on_stdout` and `on_stderr` are called with
        text as it comes. At `timeout` the command ends with all that it started, and
        `result.timed_out` is True. `check`: raise `CommandFailed` unless the exit code is 0."""
        order = command_order(command, timeout=timeout, env=env or {}, cwd=cwd, user=user)
        for name, teller in (("on_stdout", on_stdout), ("on_stderr", on_stderr)):
            if teller is not None and not callable(teller):
                raise ConfigError(f"{name}: {teller!r} cannot be called", hint="a function of text")
        parts: dict[StreamName, list[bytes]] = {name: [] for name in StreamName}
        tellers = {
            StreamName.STDOUT: _teller(on_stdout),
            StreamName.STDERR: _teller(on_stderr),
        }

        def keep(stream: StreamName, data: bytes) -> None:
            parts[stream].append(data)
            tellers[stream](data)

        end = self.follow(order, keep)
        for tell in tellers.values():
            tell(b"")
        result = CommandResult(
            exit_code=end.exit_code,
            stdout_bytes=b"".join(parts[StreamName.STDOUT]),
            stderr_bytes=b"".join(parts[StreamName.STDERR]),
            timed_out=end.timed_out,
            truncated=end.truncated,
            seconds=end.seconds,
        )
        if check and (end.exit_code or end.timed_out):
            raise CommandFailed(order.title, result)
        return result

    def follow(
        self, order: CommandOrder, on_output: Callable[[StreamName, bytes], object]
    ) -> CommandEnd:
        """Start a command unless its id was started, and pass its output to `on_output`, as bytes.
        Returns its end."""
        with self.translated():
            return self._client.run(order, on_output)

    def start(self, order: CommandOrder) -> None:
        """Start a command unless its id was started. Returns at once."""
        with self.translated():
            self._client.start(order)

    def send_input(self, command: str, offset: int, data: bytes, *, last: bool = False) -> None:
        """Send the bytes at `offset` of a command's stdin. `last`: they are the end of it."""
        with self.translated():
            self._client.send_input(command, offset, data, last=last)

    def send_signal(self, command: str, number: int) -> None:
        """Send signal `number` to all processes of a command. An ended command gets none."""
        checked = field_checks.whole(number, "number", 1, 64)
        with self.translated():
            self._client.signal(command, checked)

    def popen(
        self,
        command: str | Sequence[str],
        /,
        *,
        stdin: bool = False,
        timeout: Duration | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/work",
        user: str | None = None,
    ) -> SandboxProcess:
        """Start a command and return at once. Iterating over it yields lines of its stdout, as
        bytes. `stdin`: it can be written to. Other options as with `run`."""
        order = command_order(
            command, timeout=timeout, env=env or {}, cwd=cwd, user=user, stdin=stdin
        )
        self.start(order)
        return SandboxProcess(self._client, order, self.translated)

    def terminal(
        self,
        command: str | Sequence[str] | None = None,
        /,
        *,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
        cwd: str = "/work",
    ) -> Terminal:
        """Start a command at a terminal of its own; default: a shell. Close the terminal when done,
        or use it in a `with`. Raises `NotFound` if there is no such command."""
        size = checked_size(columns, rows)
        argv = SHELL if command is None else command
        order = command_order(argv, env=env or {}, cwd=cwd, stdin=True)
        with self.translated():
            return Terminal(self._client.terminal(order, *size), self.translated)

    # --- files ---

    def upload(self, source: str | os.PathLike[str], to: str = "/work") -> None:
        """Copy a file, or the content of a directory, into the directory `to`. Of a git work tree,
        files that git ignores stay out."""
        self.files.upload(source, to)

    def download(
        self, path: str, to: str | os.PathLike[str] = ".", *, most: str | int = DISK
    ) -> Path:
        """Copy a file to `to`, or the content of a directory below `to`; return its place. Raises
        `Conflict` or `BadArchive` beyond `most` bytes (default: 2 GiB)."""
        return self.files.download(path, to, most=most)

    def forward(self, port: int, local: int = 0) -> PortForward:
        """Forward port `local` of this machine's loopback (0: any free one) to a port of the
        sandbox, until it is closed. The end of a `with`, `close` and `kill` close it too."""
        field_checks.whole(port, "port", 1, 65535)
        opened = PortForward(self._client, port, field_checks.whole(local, "local", 0, 65535))
        self._forwards.append(opened)
        return opened

    # --- life ---

    def extend(self, by: Duration) -> Build:
        """Prolong its life by `by` ("20m", seconds or a timedelta), or until its VM's deadline, if
        that is sooner. Raises `Conflict` at that deadline, and once it has ended."""
        row = self._runner.service.extend(self._build.row, units.duration(by, "by"))
        self._build = Build(row, self._runner)
        return self._build

    def info(self) -> Build:
        """Return a new snapshot of its build. Raises `NotFound` once its row is removed."""
        self._build = self._build.refresh()
        return self._build

    def is_running(self) -> bool:
        """Return True until its end is in the ledger."""
        return self.info().state is BuildState.RUNNING

    def ssh_command(self) -> str:
        """Return the command line that opens a shell in its container from this machine."""
        return shlex.join(["vmrunner", "sandbox", "shell", self.id])

    def kill(self) -> None:
        """End it now, with its VM. A second call does nothing."""
        self._let_go()
        self._runner.end_sandbox(self.id)

    def close(self) -> None:
        """Release the connection. The sandbox lives on until its `ttl` ends, unless it is owned."""
        self._let_go()
        if self._own_runner:
            self._runner.close()

    def _let_go(self) -> None:
        for opened in self._forwards:
            opened.close()
        self._forwards.clear()
        self._client.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn `SandboxOver` into `BuildLost` if the VM died."""
        try:
            yield
        except SandboxOver as error:
            build = self._runner.settled(self.id)
            if build.result not in (Result.SUCCESS, Result.CANCELLED):
                raise BuildLost(str(error.args[0]), build=build, hint=error.hint) from error
            raise


def _usable(build: Build) -> Build:
    """Return it if it is a sandbox that is ready."""
    if build.spec.sandbox_ttl is None:
        raise Conflict(f"{build.id} is a build, no sandbox", hint="vmrunner ssh goes into it")
    if build.state is not BuildState.RUNNING:
        state = build.result.value if build.result else build.state.value
        raise SandboxOver(f"sandbox {build.id} is {state}")
    return build


def command_order(
    command: str | Sequence[str],
    *,
    timeout: Duration | None = None,
    env: Mapping[str, str],
    cwd: str = "/work",
    user: str | None = None,
    stdin: bool = False,
    id: str | None = None,  # noqa: A002 - what it is
) -> CommandOrder:
    """Return the order for one command. Raises ConfigError for a value that cannot be used."""
    argv: tuple[str, ...] = ()
    if isinstance(command, str):
        argv, title = (("/bin/sh", "-c", command) if command.strip() else ()), command
    else:
        words = field_checks.several(command, "command")
        argv = tuple(field_checks.characters(word, "command") for word in words)
        title = shlex.join(argv)
    return field_checks.command_order(
        CommandOrder(
            id=id or ids.command_id(),
            argv=argv,
            title=title,
            env=field_checks.environment_table(env, "env"),
            cwd=cwd,
            user=user,
            timeout=None if timeout is None else units.duration(timeout, "timeout"),
            stdin=stdin,
        )
    )


def _teller(on_text: OnText | None) -> Callable[[bytes], object]:
    """Hand on bytes as text, which a character may be cut in two of. Nothing is their end."""
    if on_text is None:
        return lambda _: None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def tell(data: bytes) -> None:
        if text := decoder.decode(data, final=not data):
            on_text(text)

    return tell


def _given(runner: Runner | None) -> Iterator[Runner]:
    """The runner that was given, or one for the moment."""
    if runner is not None:
        yield runner
        return
    with Runner() as own:
        yield own
