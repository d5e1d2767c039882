"""The Python API as coroutines: `run`, `Runner`, `Sandbox`, by threads. One implementation: what a
coroutine here does, the object of the same name in `vmrunner` does in a thread.

async with await aio.Sandbox.create(container="python:3.13") as sb:
    print((await sb.run("pip --version")).stdout)

A task that is cancelled goes on at once, and its call ends by itself soon: a build of `run` is
cancelled, a sandbox that was being made is ended, a command of one runs on there."""

from __future__ import annotations

import builtins
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

import anyio
import anyio.to_thread

from vmrunner.api.build import Build
from vmrunner.api.keywords import BuildOptions, Command, Duration, SandboxOptions
from vmrunner.api.port_forward import PortForward
from vmrunner.api.runner import Runner as _Runner
from vmrunner.api.runner import run as _run
from vmrunner.api.sandbox import Sandbox as _Sandbox
from vmrunner.api.sandbox_files import SandboxFiles as _Files
from vmrunner.api.sandbox_process import SandboxProcess as _Process
from vmrunner.api.terminal import Terminal as _Terminal
from vmrunner.errors import VmrunnerError
from vmrunner.lib import cancellation
from vmrunner.model import LogLine

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
W = TypeVar("W")
M = TypeVar("M", _Runner, _Sandbox, _Terminal, PortForward)

log = logging.getLogger("vmrunner")


async def _in_thread(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Call it in a thread. A task that is cancelled does not wait for it: `undo` is given what it
    returns all the same."""
    gone, lock, made = threading.Event(), threading.Lock(), []

    def work() -> T:
        cancellation.watch(gone)
        found = call()
        with lock:
            made.append(found)
            late = gone.is_set()
        if late and undo is not None:
            undo(found)
        return found

    try:
        # A limiter of its own: no call waits for a thread that others have, and they for it.
        alone = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=alone)
    except BaseException:
        with lock:
            gone.set()
            found = list(made)
        if found and undo is not None:
            undo(found[0])
        raise


def _aside(call: Callable[[T], object]) -> Callable[[T], None]:
    """A function that makes this call in a thread, and translates its errors."""

    def work(what: T) -> None:
        try:
            call(what)
        except VmrunnerError as error:
            log.warning("%s", error)

    return lambda what: threading.Thread(target=work, args=(what,), name="undo").start()


def _method(
    of: Callable[Concatenate[W, P], T],
) -> Callable[Concatenate[_Handle[W], P], Coroutine[Any, Any, T]]:
    """A method of the wrapped object, as a coroutine."""

    @functools.wraps(of)
    async def call(self: _Handle[W], /, *words: P.args, **options: P.kwargs) -> T:
        return await _in_thread(lambda: of(self._wrapped, *words, **options))

    return call


async def run(
    command: Command,
    /,
    *,
    check: bool = True,
    on_log: Callable[[LogLine], object] | None = None,
    wait_timeout: Duration | None = None,
    **options: Unpack[BuildOptions],
) -> Build:
    """One build in one fresh VM, from here to its end: see `vmrunner.run`. `on_log` is called in
    another thread."""
    return await _in_thread(
        lambda: _run(command, check=check, on_log=on_log, wait_timeout=wait_timeout, **options)
    )


class _Handle(Generic[W]):
    """An object whose methods are coroutines."""

    def __init__(self, wrapped: W) -> None:
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return f"<aio {self._wrapped!r}>"


class _Context(_Handle[M]):
    """One that is left as the wrapped object is."""

    _wrapped: M

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await _in_thread(lambda: self._wrapped.__exit__(kind, error, trace))


class AsyncRunner(_Context[_Runner]):
    """`vmrunner.Runner`, whose methods are coroutines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(_Runner(**options))

    submit = _method(_Runner.submit)
    run = _method(_Runner.run)
    get = _method(_Runner.get)
    list = _method(_Runner.list)
    wait = _method(_Runner.wait)
    cancel = _method(_Runner.cancel)
    reap = _method(_Runner.reap)
    audit = _method(_Runner.audit)
    costs = _method(_Runner.costs)
    doctor = _method(_Runner.doctor)
    close = _method(_Runner.close)


class AsyncSandboxProcess(_Handle[_Process]):
    """A command that runs in a sandbox: `async for` yields lines of its stdout, as bytes."""

    write = _method(_Process.write)
    close_stdin = _method(_Process.close_stdin)
    kill = _method(_Process.kill)
    wait = _method(_Process.wait)

    @property
    def id(self) -> str:
        return self._wrapped.id

    @property
    def stderr_bytes(self) -> bytes:
        """Stderr until now."""
        return self._wrapped.stderr_bytes

    @property
    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._wrapped.exit_code

    @property
    def timed_out(self) -> bool:
        """True if it was ended at its timeout."""
        return self._wrapped.timed_out

    async def __aiter__(self) -> AsyncIterator[bytes]:
        take, keep = self._wrapped.take_line, self._wrapped.keep_line
        while (line := await _in_thread(take, keep)) is not None:
            yield line


class AsyncTerminal(_Context[_Terminal]):
    """A command at a terminal: `async for` yields what it shows, as bytes."""

    write = _method(_Terminal.write)
    resize = _method(_Terminal.resize)
    wait = _method(_Terminal.wait)
    close = _method(_Terminal.close)

    async def read(self, timeout: Duration | None = None) -> bytes:
        """Bytes that it has shown since the last call, once there are some; b"" at its end."""
        return await _in_thread(lambda: self._wrapped.read(timeout), self._wrapped.unread)

    @property
    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._wrapped.exit_code

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while shown := await self.read():
            yield shown


class AsyncPortForward(_Context[PortForward]):
    """A port of a sandbox, on this machine's loopback, until it is closed."""

    close = _method(PortForward.close)

    def __enter__(self) -> PortForward:
        return self._wrapped

    def __exit__(self, *_: object) -> None:
        self._wrapped.close()

    @property
    def address(self) -> tuple[str, int]:
        return self._wrapped.address

    @property
    def port(self) -> int:
        """Return the port here."""
        return self._wrapped.port

    @property
    def url(self) -> str:
        return self._wrapped.url


class _Opening:
    """A forwarded port that is opened by `await`, or by `async with`, which closes it too."""

    def __init__(self, start: Callable[[], PortForward]) -> None:
        self._start = start

    def __await__(self) -> Generator[Any, None, AsyncPortForward]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncPortForward:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._opened.close()

    async def _open(self) -> AsyncPortForward:
        return AsyncPortForward(await _in_thread(self._start, PortForward.close))


class AsyncSandboxFiles(_Handle[_Files]):
    """Files of a sandbox."""

    read = _method(_Files.read)
    read_text = _method(_Files.read_text)
    write = _method(_Files.write)
    list = _method(_Files.list)
    exists = _method(_Files.exists)
    stat = _method(_Files.stat)
    remove = _method(_Files.remove)
    make_dir = _method(_Files.make_dir)
    upload = _method(_Files.upload)
    download = _method(_Files.download)


class AsyncSandbox(_Context[_Sandbox]):
    """`vmrunner.Sandbox`, whose methods are coroutines, as are those of `files`."""

    def __init__(self, wrapped: _Sandbox) -> None:
        super().__init__(wrapped)
        self.files = AsyncSandboxFiles(wrapped.files)

    @classmethod
    async def create(
        cls,
        *,
        owned: bool = False,
        wait_timeout: Duration | None = None,
        runner: AsyncRunner | _Runner | None = None,
        settings: Settings | None = None,
        **options: Unpack[SandboxOptions],
    ) -> Self:
        """Start a sandbox and wait until it is ready."""
        blocking = _blocking(runner)
        return cls(
            await _in_thread(
                lambda: _Sandbox.create(
                    owned=owned,
                    wait_timeout=wait_timeout,
                    runner=blocking,
                    settings=settings,
                    **options,
                ),
                _aside(lambda made: made.__exit__(None, None, None)),
            )
        )

    @classmethod
    async def connect(cls, sandbox: str, *, runner: AsyncRunner | _Runner | None = None) -> Self:
        """A sandbox that is there."""
        blocking = _blocking(runner)
        return cls(
            await _in_thread(
                lambda: _Sandbox.connect(sandbox, runner=blocking), _aside(_Sandbox.close)
            )
        )

    @staticmethod
    async def list(
        *, labels: Mapping[str, str] | None = None, runner: AsyncRunner | _Runner | None = None
    ) -> builtins.list[Build]:
        """Return the sandboxes that live, newest first."""
        blocking = _blocking(runner)
        return await _in_thread(lambda: _Sandbox.list(labels=labels, runner=blocking))

    @property
    def id(self) -> str:
        return self._wrapped.id

    run = _method(_Sandbox.run)
    upload = _method(_Sandbox.upload)
    download = _method(_Sandbox.download)
    extend = _method(_Sandbox.extend)
    info = _method(_Sandbox.info)
    is_running = _method(_Sandbox.is_running)
    ssh_command = _method(_Sandbox.ssh_command)
    kill = _method(_Sandbox.kill)
    close = _method(_Sandbox.close)

    @functools.wraps(_Sandbox.forward)
    def forward(self, *words: Any, **options: Any) -> _Opening:
        return _Opening(functools.partial(self._wrapped.forward, *words, **options))

    @functools.wraps(_Sandbox.popen)
    async def popen(self, *words: Any, **options: Any) -> AsyncSandboxProcess:
        start = functools.partial(self._wrapped.popen, *words, **options)
        return AsyncSandboxProcess(await _in_thread(start, _aside(_Process.kill)))

    @functools.wraps(_Sandbox.terminal)
    async def terminal(self, *words: Any, **options: Any) -> AsyncTerminal:
        start = functools.partial(self._wrapped.terminal, *words, **options)
        return AsyncTerminal(await _in_thread(start, _aside(_Terminal.close)))


def _blocking(runner: AsyncRunner | _Runner | None) -> _Runner | None:
    return runner._wrapped if isinstance(runner, AsyncRunner) else runner


Runner = AsyncRunner
Sandbox = AsyncSandbox

__all__ = [
    "AsyncPortForward",
    "AsyncRunner",
    "AsyncSandbox",
    "AsyncSandboxFiles",
    "AsyncSandboxProcess",
    "AsyncTerminal",
    "Runner",
    "Sandbox",
    "run",
]


def __dir__() -> builtins.list[str]:
    return [*__all__]
