"""The tools of `vmrunner mcp`, on the official SDK.

Sandboxes are owned by this process and belong to the session that made them: they end with it, at
their `ttl`, or when the process ends. What tools answer is cut, with a note."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, ParamSpec, TypeVar, Unpack

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from vmrunner.api.build import Build
from vmrunner.api.keywords import BuildOptions, SandboxOptions
from vmrunner.api.runner import Runner
from vmrunner.api.sandbox import Sandbox
from vmrunner.config import network_policy
from vmrunner.core.ceilings import covers
from vmrunner.errors import ConfigError, Conflict, NotAllowed, VmrunnerError
from vmrunner.integrations.mcp.sessions import LONGEST_TTL, ONLY, SessionSandboxes, end
from vmrunner.model import BuildSpec, Network, NetworkPolicy
from vmrunner.services.documents import shown

P = ParamSpec("P")
T = TypeVar("T")

TEXT: Final = 32 * 1024  # characters of one text in an answer
FILE: Final = 1 << 20  # bytes of a file in an answer
PROGRESS: Final = 5.0  # seconds between two words of it
ENTRIES: Final = 500  # of one list
CALLS: Final = 256  # threads of calls at once

INSTRUCTIONS: Final = (
    "Run untrusted code in a virtual machine of its own. sandbox_create starts one and returns its "
    "id; it has no network unless you ask for it, and ends by itself within 15 minutes. Call "
    "sandbox_kill when you are done. run_build runs one command in a fresh machine."
)
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


class FileAnswer(BaseModel):
    """A file as text."""

    path: str
    text: str
    size: int
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
    """Return the server. Whoever runs it closes `sandboxes` and `runner`. No tool gives a VM more
    than the network `network_at_most`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {}
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(sandboxes.close)

    server: MCPServer[Any] = MCPServer(
        "vmrunner",
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        log_level="WARNING",  # below that it tells ids of sessions
    )

    @server.tool(annotations=_CHANGES)
    @_spoken
    async def sandbox_create(
        context: Context,
        container: str | None = None,
        network: str = "none",
        ttl_seconds: float = LONGEST_TTL,
    ) -> CreatedSandbox:
        """Start a virtual machine with a container (a Docker image name; default: Debian with
        Python, git and compilers) and return its id. network: none, open, or these hosts alone:
        allow=HOST[:PORT],…"""
        if not 0 < ttl_seconds <= LONGEST_TTL:
            raise ConfigError(
                f"ttl_seconds: {ttl_seconds:g} is not above 0 and at most {LONGEST_TTL:g}",
                hint="leave it out",
            )
        _held(network, network_at_most)
        _end_with_session(context, sandboxes)
        sandbox, spec = await _started(
            context, runner, container=container, network=network, ttl=ttl_seconds
        )
        sandboxes.add(_session(context), sandbox)
        return CreatedSandbox(
            sandbox=sandbox.id,
            container=spec.container,
            network=str(spec.network),
            ttl_seconds=ttl_seconds,
        )

    @server.tool(annotations=_ENDS)
    @_spoken
    async def sandbox_run(
        context: Context,
        sandbox: str,
        command: str,
        timeout_seconds: float = 60,
        cwd: str = "/work",
    ) -> CommandAnswer:
        """Run a shell command in a sandbox and return its output and exit code."""
        found = sandboxes.get(_session(context), sandbox)
        call = functools.partial(found.run, command, timeout=timeout_seconds, cwd=cwd)
        done = await _at_length(context, call, left_alone=True)
        out, out_note = _cut(done.stdout, "stdout")
        err, err_note = _cut(done.stderr, "stderr")
        return CommandAnswer(
            exit_code=done.exit_code,
            stdout=out,
            stderr=err,
            timed_out=done.timed_out,
            note=" ".join(filter(None, [out_note, err_note])),
        )

    @server.tool(annotations=_READS)
    @_spoken
    async def sandbox_read_file(context: Context, sandbox: str, path: str) -> FileAnswer:
        """Read a file of a sandbox as text (UTF-8)."""
        found = sandboxes.get(_session(context), sandbox)
        data = await _left_alone(_read, found, path)
        text, note = _cut(data.decode("utf-8", "replace"), "text")
        return FileAnswer(path=path, text=text, size=len(data), note=note)

    @server.tool(annotations=_CHANGES)
    @_spoken
    async def sandbox_write_file(context: Context, sandbox: str, path: str, text: str) -> str:
        """Write a text file in a sandbox, with the directories above it."""
        found = sandboxes.get(_session(context), sandbox)
        await _left_alone(found.files.write, path, text)
        return f"{path}: {len(text.encode())} bytes were written"

    @server.tool(annotations=_READS)
    @_spoken
    async def sandbox_list_files(context: Context, sandbox: str, path: str = "/work") -> ListAnswer:
        """List a directory of a sandbox."""
        found = sandboxes.get(_session(context), sandbox)
        entries = await _left_alone(found.files.list, path)
        note = f"{len(entries) - ENTRIES} more were left out" if len(entries) > ENTRIES else ""
        listed = [
            FileListed(name=shown(one.name), kind=shown(one.kind), size=one.size)
            for one in entries[:ENTRIES]
        ]
        return ListAnswer(path=path, entries=listed, note=note)

    @server.tool(annotations=_ENDS)
    @_spoken
    async def sandbox_kill(context: Context, sandbox: str) -> str:
        """End a sandbox, with its virtual machine and all that is in it."""
        await anyio.to_thread.run_sync(sandboxes.end, _session(context), sandbox)
        return f"{sandbox} is ended"

    @server.tool(annotations=_ENDS)
    @_spoken
    async def run_build(
        context: Context,
        command: str,
        container: str | None = None,
        network: str = "none",
        timeout_seconds: float = 600,
    ) -> BuildAnswer:
        """Run one shell command in a container in a fresh virtual machine, which is destroyed when
        it ends, and return the end of its log and its exit code. network: none, open, or these
        hosts alone: allow=HOST[:PORT],…"""
        if not 0 < timeout_seconds <= LONGEST_TTL:
            raise ConfigError(
                f"timeout_seconds: {timeout_seconds:g} is not above 0 and at most {LONGEST_TTL:g}",
                hint="leave it out",
            )
        _held(network, network_at_most)
        build, text, note = await _at_length(
            context,
            lambda: _built(
                runner, command, container=container, network=network, timeout=timeout_seconds
            ),
        )
        return BuildAnswer(
            build=build.id,
            result=build.result.value if build.result else "",
            reason=build.reason.value if build.reason else "",
            exit_code=build.exit_code,
            log=text,
            note=note,
        )

    return server


def _held(network: str, most: NetworkPolicy) -> None:
    """Raise NotAllowed for a network above what whoever started this server allows."""
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


async def _at_length(context: Context, work: Callable[[], T], *, left_alone: bool = False) -> T:
    """Do in a thread what takes long: clients wait for as long as they hear of progress. One that
    waits no more is noticed by `leave_if_cancelled`, and its thread is waited for, unless it is
    `left_alone`."""
    async with anyio.create_task_group() as beside:
        beside.start_soon(_report, context)
        try:
            done, failed = await _in_thread(work, left_alone=left_alone), None
        except VmrunnerError as error:  # what leaves a task group is wrapped
            failed = error
        beside.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return done


async def _left_alone(work: Callable[..., T], *words: Any, **options: Any) -> T:
    """Do in a thread what ends with its sandbox: who is cancelled does not wait for it."""
    return await _in_thread(functools.partial(work, *words, **options), left_alone=True)


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
    """Start a sandbox. One whose call was cancelled meanwhile ends: nobody is told its id."""
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


def _read(sandbox: Sandbox, path: str) -> bytes:
    try:
        return sandbox.files.read(path, most=FILE)
    except Conflict as error:
        hint = "read a part of it with sandbox_run: head, tail, grep"
        raise Conflict(str(error.args[0]), hint=hint) from None


def _built(runner: Runner, command: str, **options: Unpack[BuildOptions]) -> tuple[Build, str, str]:
    """Run a build; it, the end of its log, and a note of what was left out."""
    build = runner.run(command, check=False, **options)
    return build, *_last(build.logs())


def leave_if_cancelled() -> None:
    """Raise what ends the call that this thread works for, once that is cancelled."""
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:
        return  # it works for none


async def _report(context: Context) -> None:
    seconds = 0.0
    while True:
        await context.report_progress(seconds, message="a virtual machine is being used for it")
        await anyio.sleep(PROGRESS)
        seconds += PROGRESS


def _session(context: Context) -> str:
    """Return the session that asks, as its connection has it: a header could name another's. Over
    stdio there is one only, and clients without sessions share one: there the sandbox's id is what
    nobody else knows."""
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


def _cut(text: str, name: str, left: int = 0) -> tuple[str, str]:
    """Return the end of a text that is too long, and a note of it. `left`: characters before it."""
    left += max(0, len(text) - TEXT)
    note = f"{name}: the first {left} characters were left out." if left else ""
    return text[-TEXT:], note


def _last(lines: Iterable[str]) -> tuple[str, str]:
    """Return the end of a log, and a note of what was left out. Not all of it is held."""
    text, left = "", 0
    for line in lines:
        text = f"{text}\n{line}" if text or left else line
        if (more := len(text) - 2 * TEXT) > 0:
            text, left = text[more:], left + more
    return _cut(text, "log", left)
