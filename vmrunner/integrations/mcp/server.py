"""The tools of `vmrunner mcp`, on the official SDK.

Sandboxes are owned by this process and belong to the session that made them: they end with it, at
their `ttl`, or when the process ends. What tools answer is cut, with a note."""

from __future__ import annotations

import base64
import contextlib
import functools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Annotated, Any, Final, Literal, ParamSpec, TypeVar, Unpack

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from vmrunner.api.build import Build
from vmrunner.api.keywords import BuildOptions, SandboxOptions
from vmrunner.api.runner import Runner
from vmrunner.api.sandbox import Sandbox, command_order
from vmrunner.config import network_policy
from vmrunner.core.ceilings import covers
from vmrunner.errors import ConfigError, Conflict, NotAllowed, VmrunnerError
from vmrunner.integrations.mcp.arguments import StrictTool
from vmrunner.integrations.mcp.background import BackgroundCommand
from vmrunner.integrations.mcp.sessions import LONGEST_TTL, ONLY, SessionSandboxes, end
from vmrunner.lib.terminal import clean
from vmrunner.model import BuildSpec, Network, NetworkPolicy
from vmrunner.services.documents import shown

P = ParamSpec("P")
T = TypeVar("T")
_Work = Callable[..., Awaitable[Any]]
_Adding = Callable[[ToolAnnotations], Callable[[_Work], None]]  # a decorator that adds a tool

TEXT: Final = 32 * 1024  # characters of one text in an answer
FILE: Final = 1 << 20  # bytes of a file in an answer
BINARY: Final = 256 * 1024  # … as base64
LINE: Final = 200  # characters of a line that progress tells
_PIECE: Final = 4096  # … of output that is looked through for it
PROGRESS: Final = 5.0  # seconds between two words of it
ENTRIES: Final = 500  # of one list
CALLS: Final = 256  # threads of calls at once

INSTRUCTIONS: Final = (
    "Run untrusted code in a virtual machine of its own. sandbox_create starts one and returns its "
    "id; it has no network unless you ask for it, and ends by itself within 15 minutes. Call "
    "sandbox_kill when you are done, and sandbox_extend when you need longer. run_build runs one "
    "command in a fresh machine."
)

SandboxId = Annotated[str, Field(description="The id that sandbox_create gave.")]
CommandId = Annotated[str, Field(description="The id that sandbox_start gave.")]
ShellLine = Annotated[str, Field(min_length=1, description="A line for /bin/sh.")]
Directory = Annotated[str, Field(description="A directory: absolute, or below /work.")]
FilePath = Annotated[str, Field(min_length=1, description="Absolute, or below /work.")]
Container = Annotated[
    str | None,
    Field(description="A Docker image's name; one that is not in the VM needs network open."),
]
Policy = Annotated[
    str, Field(description="none, open, or allow=HOST[:PORT],… for these hosts alone.")
]
Encoding = Annotated[
    Literal["utf-8", "base64"], Field(description="utf-8 for text, base64 for any bytes.")
]
Seconds = Annotated[
    float, Field(gt=0, le=LONGEST_TTL, description=f"Seconds, at most {LONGEST_TTL:g}.")
]
Wait = Annotated[float, Field(ge=0, le=60, description="Seconds, at most 60.")]

_READS: Final = ToolAnnotations(read_only_hint=True)
_CHANGES: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False)
_ENDS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=True)


class CreatedSandbox(BaseModel):
    """A sandbox that is ready."""

    sandbox: str = Field(description="Its id, for the other tools.")
    container: str
    network: str
    ttl_seconds: float


class CommandAnswer(BaseModel):
    """A command that ended."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    note: str = Field(default="", description="What was left out.")


class ListedSandbox(BaseModel):
    """A sandbox that lives."""

    sandbox: str
    seconds_left: int = Field(description="Then it ends by itself; sandbox_extend moves that.")


class SandboxesAnswer(BaseModel):
    """The sandboxes of a session."""

    sandboxes: list[ListedSandbox]


class StartedCommand(BaseModel):
    """A command that runs in the background."""

    command: str = Field(description="Its id, for sandbox_output and sandbox_stop.")


class BackgroundAnswer(BaseModel):
    """Output of a command in the background since the last call."""

    running: bool
    exit_code: int | None
    stdout: str
    stderr: str
    note: str = Field(default="", description="What was left out.")


class FileAnswer(BaseModel):
    """A file."""

    path: str
    text: str
    size: int = Field(description="In bytes.")
    encoding: str = "utf-8"
    note: str = ""


class FileListed(BaseModel):
    """An entry of a directory."""

    name: str
    kind: str
    size: int


class ListAnswer(BaseModel):
    """A directory."""

    path: str
    entries: list[FileListed]
    note: str = ""


class BuildAnswer(BaseModel):
    """A build that ended."""

    build: str
    result: str
    reason: str
    exit_code: int | None
    log: str
    note: str = ""


def make(
    runner: Runner, sandboxes: SessionSandboxes, *, network_at_most: NetworkPolicy = Network.OPEN
) -> MCPServer[Any]:
    """Return the server. Its caller closes `sandboxes` and `runner`. No tool gives a VM more
    than the network `network_at_most`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {}
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(sandboxes.close)

    tools: list[Tool] = []

    def tool(annotations: ToolAnnotations) -> Callable[[_Work], None]:
        return lambda work: tools.append(StrictTool.of(_spoken(work), annotations))

    _add_lives(tool, runner, sandboxes, network_at_most)
    _add_commands(tool, sandboxes)
    _add_files(tool, sandboxes)
    _add_builds(tool, runner, network_at_most)
    return MCPServer(
        "vmrunner",
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        tools=tools,
        log_level="WARNING",  # below that it tells ids of sessions
    )


def _add_lives(
    tool: _Adding, runner: Runner, sandboxes: SessionSandboxes, network_at_most: NetworkPolicy
) -> None:
    @tool(_CHANGES)
    async def sandbox_create(
        context: Context,
        container: Container = None,
        network: Policy = "none",
        ttl_seconds: Seconds = LONGEST_TTL,
    ) -> CreatedSandbox:
        """Start a virtual machine with a container (a Docker image name; default: Debian with
        Python, git and compilers) and return its id. network: none, open, or these hosts alone:
        allow=HOST[:PORT],…"""
        _held(network, network_at_most)
        _end_with_session(context, sandboxes)
        sandbox, spec = await _started(
            context, runner, container=container, network=network, ttl=ttl_seconds
        )
        sandboxes.add(_session(context), sandbox, ttl_seconds)
        return CreatedSandbox(
            sandbox=sandbox.id,
            container=spec.container,
            network=str(spec.network),
            ttl_seconds=ttl_seconds,
        )

    @tool(_READS)
    async def sandbox_list(context: Context) -> SandboxesAnswer:
        """List the sandboxes of this session that live."""
        return SandboxesAnswer(
            sandboxes=[
                ListedSandbox(sandbox=sandbox.id, seconds_left=round(remaining))
                for sandbox, remaining in sandboxes.list(_session(context))
            ]
        )

    @tool(_CHANGES)
    async def sandbox_extend(
        context: Context, sandbox: SandboxId, seconds: Seconds = LONGEST_TTL
    ) -> ListedSandbox:
        """Let a sandbox live longer. All in all it cannot live longer than its server allows."""
        remaining = await _left_alone(
            context, sandboxes.extend, _session(context), sandbox, seconds
        )
        return ListedSandbox(sandbox=sandbox, seconds_left=round(remaining))

    @tool(_ENDS)
    async def sandbox_kill(context: Context, sandbox: SandboxId) -> str:
        """End a sandbox, with its virtual machine and all that is in it."""
        await anyio.to_thread.run_sync(sandboxes.end, _session(context), sandbox)
        return f"{sandbox} is ended"


def _add_commands(tool: _Adding, sandboxes: SessionSandboxes) -> None:
    @tool(_ENDS)
    async def sandbox_run(
        context: Context,
        sandbox: SandboxId,
        command: ShellLine,
        timeout_seconds: Seconds = 60,
        cwd: Directory = "/work",
    ) -> CommandAnswer:
        """Run a shell command in a sandbox and return its output and exit code. For a server, or
        what takes longer than 15 minutes, use sandbox_start."""
        found = sandboxes.get(_session(context), sandbox)
        latest = LatestLine()
        call = functools.partial(
            found.run,
            command,
            timeout=timeout_seconds,
            cwd=cwd,
            on_stdout=latest.take,
            on_stderr=latest.take,
        )
        done = await _at_length(context, call, latest, left_alone=True)
        return _answer(done.stdout, done.stderr, done.exit_code, timed_out=done.timed_out)

    @tool(_ENDS)
    async def sandbox_start(
        context: Context, sandbox: SandboxId, command: ShellLine, cwd: Directory = "/work"
    ) -> StartedCommand:
        """Start a shell command in a sandbox, such as a server, and return its id at once.
        sandbox_output gives its output, sandbox_stop ends it."""
        session = _session(context)
        found = sandboxes.get(session, sandbox)
        order = command_order(command, env={}, cwd=cwd)
        sandboxes.check_room(session, sandbox)
        started = await _left_alone(context, BackgroundCommand, found, order)
        sandboxes.keep(session, sandbox, started)
        return StartedCommand(command=order.id)

    @tool(_READS)
    async def sandbox_output(
        context: Context, sandbox: SandboxId, command: CommandId, wait_seconds: Wait = 0
    ) -> BackgroundAnswer:
        """Get the output of a command of sandbox_start since the last call, and its exit code once
        it has ended. wait_seconds: wait so long for some output, or its end."""
        found = sandboxes.command(_session(context), sandbox, command)
        news = await _at_length(context, lambda: found.take(wait_seconds), left_alone=True)
        out, out_note = _cut(news.stdout, "stdout")
        err, err_note = _cut(news.stderr, "stderr")
        dropped = f"{news.dropped} bytes, not asked for, were dropped." if news.dropped else ""
        return BackgroundAnswer(
            running=news.end is None,
            exit_code=None if news.end is None else news.end.exit_code,
            stdout=out,
            stderr=err,
            note=" ".join(filter(None, [out_note, err_note, dropped])),
        )

    @tool(_ENDS)
    async def sandbox_stop(context: Context, sandbox: SandboxId, command: CommandId) -> str:
        """Kill a command of sandbox_start, with all that it started."""
        session = _session(context)
        found = sandboxes.command(session, sandbox, command)
        kill = sandboxes.get(session, sandbox).send_signal
        await _left_alone(context, kill, found.order.id, signal.SIGKILL)
        return f"{command} is killed"


def _add_files(tool: _Adding, sandboxes: SessionSandboxes) -> None:
    @tool(_READS)
    async def sandbox_read_file(
        context: Context, sandbox: SandboxId, path: FilePath, encoding: Encoding = "utf-8"
    ) -> FileAnswer:
        """Read a file of a sandbox: text, or any bytes as base64."""
        found = sandboxes.get(_session(context), sandbox)
        if encoding == "base64":
            data = await _left_alone(context, _read, found, path, BINARY)
            text, note = base64.b64encode(data).decode(), ""
        else:
            data = await _left_alone(context, _read, found, path, FILE)
            text, note = _cut(data.decode("utf-8", "replace"), "text")
        return FileAnswer(path=path, text=text, size=len(data), encoding=encoding, note=note)

    @tool(_CHANGES)
    async def sandbox_write_file(
        context: Context,
        sandbox: SandboxId,
        path: FilePath,
        text: Annotated[str, Field(description="Its content; with encoding base64: as base64.")],
        encoding: Encoding = "utf-8",
    ) -> str:
        """Write a file in a sandbox, with the directories above it: text, or any bytes as
        base64."""
        found = sandboxes.get(_session(context), sandbox)
        data = _decoded(text) if encoding == "base64" else text.encode()
        await _left_alone(context, found.files.write, path, data)
        return f"{path}: {len(data)} bytes were written"

    @tool(_READS)
    async def sandbox_list_files(
        context: Context, sandbox: SandboxId, path: Directory = "/work"
    ) -> ListAnswer:
        """List a directory of a sandbox."""
        found = sandboxes.get(_session(context), sandbox)
        entries = await _left_alone(context, found.files.list, path)
        note = f"{len(entries) - ENTRIES} more were left out" if len(entries) > ENTRIES else ""
        listed = [
            FileListed(name=shown(entry.name), kind=shown(entry.kind), size=entry.size)
            for entry in entries[:ENTRIES]
        ]
        return ListAnswer(path=path, entries=listed, note=note)


def _add_builds(tool: _Adding, runner: Runner, network_at_most: NetworkPolicy) -> None:
    @tool(_ENDS)
    async def run_build(
        context: Context,
        command: ShellLine,
        container: Container = None,
        network: Policy = "none",
        timeout_seconds: Seconds = 600,
    ) -> BuildAnswer:
        """Run one shell command in a container in a fresh virtual machine, which is destroyed when
        it ends, and return the end of its log and its exit code. network: none, open, or these
        hosts alone: allow=HOST[:PORT],…"""
        _held(network, network_at_most)
        latest = LatestLine()

        def work() -> tuple[Build, str, str]:
            return _built(
                runner,
                command,
                latest,
                container=container,
                network=network,
                timeout=timeout_seconds,
            )

        build, text, note = await _at_length(context, work, latest)
        return BuildAnswer(
            build=build.id,
            result=build.result.value if build.result else "",
            reason=build.reason.value if build.reason else "",
            exit_code=build.exit_code,
            log=text,
            note=note,
        )


def _held(network: str, most: NetworkPolicy) -> None:
    """Raise NotAllowed for a network above what this server's operator allows."""
    if not covers(most, network_policy.policy(network, "network")):
        shown = most.value if isinstance(most, Network) else str(most)
        raise NotAllowed(
            f"network: {network[:200]!r} is above what this server may give",
            hint=f"network = {shown}",
        )


def _spoken(tool: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return a tool whose errors an agent is told: of others the SDK says nothing."""

    @functools.wraps(tool)
    async def called(*words: P.args, **options: P.kwargs) -> T:
        try:
            return await tool(*words, **options)
        except VmrunnerError as error:
            raise ToolError(str(error)) from error

    return called


class LatestLine:
    """The last line that something wrote, for who waits for it."""

    def __init__(self) -> None:
        self._end = ""  # of what was written

    @property
    def text(self) -> str:
        """Return it, fit to be shown."""
        lines = [line for line in self._end.splitlines() if line.strip()]
        return clean(lines[-1].strip())[:LINE] if lines else ""

    def take(self, text: str) -> None:
        """Take a piece of output."""
        self._end = (self._end + text)[-_PIECE:]

    def line(self, text: str) -> None:
        """Take a whole line."""
        self.take(f"{text}\n")


def _answer(out: str, err: str, code: int, *, timed_out: bool) -> CommandAnswer:
    out, out_note = _cut(out, "stdout")
    err, err_note = _cut(err, "stderr")
    note = " ".join(filter(None, [out_note, err_note]))
    return CommandAnswer(exit_code=code, stdout=out, stderr=err, timed_out=timed_out, note=note)


async def _at_length(
    context: Context,
    work: Callable[[], T],
    latest: LatestLine | None = None,
    *,
    left_alone: bool = False,
) -> T:
    """Do in a thread what takes long: clients wait for as long as they hear of progress. One that
    waits no more is noticed by `leave_if_cancelled`, and its thread is waited for, unless it is
    `left_alone`."""
    async with anyio.create_task_group() as beside:
        beside.start_soon(_report, context, latest or LatestLine())
        try:
            done, failed = await _in_thread(work, left_alone=left_alone), None
        except VmrunnerError as error:  # what leaves a task group is wrapped
            failed = error
        beside.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return done


async def _left_alone(context: Context, work: Callable[..., T], *words: Any) -> T:
    """Do at length what ends with its sandbox: who is cancelled does not wait for it."""
    return await _at_length(context, functools.partial(work, *words), left_alone=True)


async def _in_thread(work: Callable[[], T], *, left_alone: bool) -> T:
    return await anyio.to_thread.run_sync(work, limiter=_limiter(), abandon_on_cancel=left_alone)


_LIMITER: Final[anyio.lowlevel.RunVar[anyio.CapacityLimiter]] = anyio.lowlevel.RunVar("vmrunner")


def _limiter() -> anyio.CapacityLimiter:
    """Threads for calls of agents. What ends sandboxes has others, and waits for none of these."""
    try:
        return _LIMITER.get()
    except LookupError:
        _LIMITER.set(limiter := anyio.CapacityLimiter(CALLS))
        return limiter


async def _started(
    context: Context, runner: Runner, **options: Unpack[SandboxOptions]
) -> tuple[Sandbox, BuildSpec]:
    """Start a sandbox. One whose call was cancelled meanwhile ends: its id reaches no client."""
    made: list[Sandbox] = []

    def start() -> BuildSpec:
        made.append(Sandbox.create(owned=True, runner=runner, **options))
        return made[0].info().spec

    try:
        spec = await _at_length(context, start)
    except BaseException:
        with anyio.CancelScope(shield=True):
            for sandbox in made:
                await anyio.to_thread.run_sync(end, sandbox)
        raise
    return made[0], spec


def _read(sandbox: Sandbox, path: str, most: int) -> bytes:
    try:
        return sandbox.files.read(path, most=most)
    except Conflict as error:
        hint = "read a part of it with sandbox_run: head, tail, grep"
        raise Conflict(str(error.args[0]), hint=hint) from None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ConfigError("text: it is not base64", hint="encoding utf-8 takes text") from None


def _built(
    runner: Runner, command: str, latest: LatestLine, **options: Unpack[BuildOptions]
) -> tuple[Build, str, str]:
    """Run a build; it, the end of its log, and a note of what was left out."""
    build = runner.run(command, check=False, on_log=latest.line, **options)
    return build, *_last(build.logs())


def leave_if_cancelled() -> None:
    """Raise what ends the call that this thread works for, once that is cancelled."""
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:
        return  # it works for none


async def _report(context: Context, latest: LatestLine) -> None:
    seconds = 0.0
    while True:
        message = latest.text or "a virtual machine is being used for it"
        await context.report_progress(seconds, message=message)
        await anyio.sleep(PROGRESS)
        seconds += PROGRESS


def _session(context: Context) -> str:
    """Return the session that asks, as its connection has it: a header could name another's. Over
    stdio there is one only, and clients without sessions share one: there the sandbox's id is what
    no other process knows."""
    return context.session._connection.session_id or ONLY


def _end_with_session(context: Context, sandboxes: SessionSandboxes) -> None:
    """See to it, once a session, that its sandboxes end with it."""
    session = _session(context)
    connection = context.session._connection
    if session == ONLY or connection.state.setdefault("vmrunner", False):
        return  # it ends with this process
    connection.state["vmrunner"] = True
    connection.exit_stack.push_async_callback(
        anyio.to_thread.run_sync, sandboxes.end_session, session
    )


def _cut(text: str, name: str, omitted: int = 0) -> tuple[str, str]:
    """The end of a text that is too long, and a note of it. `omitted`: characters before it."""
    omitted += max(0, len(text) - TEXT)
    note = f"{name}: the first {omitted} characters were left out." if omitted else ""
    return text[-TEXT:], note


def _last(lines: Iterable[str]) -> tuple[str, str]:
    """Return the end of a log, and a note of what was left out. Not all of it is held."""
    text, omitted = "", 0
    for line in lines:
        text = f"{text}\n{line}" if text or omitted else line
        if (more := len(text) - 2 * TEXT) > 0:
            text, omitted = text[more:], omitted + more
    return _cut(text, "log", omitted)
