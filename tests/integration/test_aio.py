"""The API as coroutines: what a task that is cancelled leaves behind, and what many wait for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import vmrunner
from tests.support.fake_runner import app
from tests.support.scripted_app import CountedApp
from tests.support.sshd import wait_for
from vmrunner import aio
from vmrunner.api.sandbox_process import SandboxProcess
from vmrunner.model import CommandEnd, CommandOrder, Reason, Result, StreamName

pytestmark = pytest.mark.timeout(60)
__all__ = ["app"]


@pytest.fixture
def runner(app: CountedApp) -> Iterator[aio.Runner]:
    runner = aio.Runner(app=app)
    yield runner
    wait_for(lambda: not threads())
    asyncio.run(runner.close())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "AnyIO" in thread.name]


async def cancelled(task: asyncio.Task[Any], when: Callable[[], bool]) -> None:
    while not when():
        await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_sandbox_is_used_and_left(runner: aio.Runner) -> None:
    async def main() -> str:
        async with await aio.Sandbox.create(runner=runner, ttl="5m", owned=True) as sandbox:
            assert (await sandbox.info()).state.value == "running"
            assert [sandbox.id for sandbox in await aio.Sandbox.list(runner=runner)] == [sandbox.id]
            again = await aio.Sandbox.connect(sandbox.id, runner=runner)
            assert again.id == sandbox.id
            return sandbox.id

    done = asyncio.run(main())
    blocking: vmrunner.Runner = runner._wrapped
    assert blocking.get(done).result is Result.SUCCESS


def test_a_forwarded_port_is_a_context_manager(
    runner: aio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[tuple[str, int]]:
        async with await aio.Sandbox.create(runner=runner, ttl="5m", owned=True) as sandbox:
            async with sandbox.forward(8000) as port:
                addresses = [port.address]
                assert port.url == f"http://127.0.0.1:{port.port}"
                await asyncio.to_thread(connect, port.address)
            async with await sandbox.forward(8000) as port:
                addresses.append(port.address)
            with await sandbox.forward(8000) as blocking:
                addresses.append(blocking.address)
            port = await sandbox.forward(8000)
            addresses.append(port.address)
            await port.close()
            return addresses

    for address in asyncio.run(main()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert loud == []


def connect(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        assert connection.recv(1) == b""  # nothing is behind it


def test_tab_shows_the_public_names() -> None:
    for module in (vmrunner, aio):
        assert {*dir(module)} - {"__version__"} == {*module.__all__}
        assert all(hasattr(module, name) for name in dir(module))


def test_a_runner_says_where_it_looks(runner: aio.Runner) -> None:
    blocking: vmrunner.Runner = runner._wrapped
    assert re.fullmatch(r"<Runner sqlite:///.*>", repr(blocking))
    far = vmrunner.Runner(url="http://127.0.0.1:9", token="vmr_hidden")
    assert repr(far) == "<Runner http://127.0.0.1:9>"
    far.close()


def test_a_sandbox_that_nobody_waits_for_ends(runner: aio.Runner) -> None:
    blocking: vmrunner.Runner = runner._wrapped
    blocking.service.drain(off=False)

    async def main() -> None:
        task = asyncio.create_task(aio.Sandbox.create(runner=runner, ttl="5m"))
        await cancelled(task, lambda: bool(blocking.list()))

    asyncio.run(main())
    (build,) = blocking.list()
    blocking.service.drain(off=True)
    done = blocking.wait(build.id, timeout=30)
    assert (done.result, done.reason) == (Result.CANCELLED, Reason.USER)


def test_one_that_came_too_late_is_undone() -> None:
    begun, made, undone = threading.Event(), threading.Event(), threading.Event()

    async def main() -> None:
        def make() -> str:
            begun.set()
            made.wait()
            return "it"

        task = asyncio.create_task(aio._in_thread(make, lambda _: undone.set()))
        await cancelled(task, begun.is_set)
        made.set()

    asyncio.run(main())
    assert undone.wait(10)


def test_a_build_that_nobody_waits_for_is_cancelled(runner: aio.Runner) -> None:
    blocking: vmrunner.Runner = runner._wrapped

    async def main() -> None:
        task = asyncio.create_task(runner.run("sleep 50"))
        await cancelled(task, lambda: any(row.state.value == "running" for row in blocking.list()))

    asyncio.run(main())
    (build,) = blocking.list()
    assert blocking.wait(build.id, timeout=30).result is Result.CANCELLED


class Spoken:
    """A sandbox's client whose command writes what a test puts."""

    def __init__(self) -> None:
        self.words: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def run(self, _: CommandOrder, on_output: Callable[[StreamName, bytes], object]) -> CommandEnd:
        while word := self.words.get():
            on_output(StreamName.STDOUT, word)
        return CommandEnd(exit_code=0)


@pytest.fixture
def spoken() -> Iterator[tuple[Spoken, aio.AsyncSandboxProcess]]:
    client = Spoken()
    order = CommandOrder(id="c1", argv=("x",), title="x")
    process = SandboxProcess(client, order, contextlib.nullcontext)  # type: ignore[arg-type]
    yield client, aio.AsyncSandboxProcess(process)
    client.words.put(b"")


def test_who_stops_waiting_for_a_line_loses_none(
    spoken: tuple[Spoken, aio.AsyncSandboxProcess],
) -> None:
    client, process = spoken

    async def main() -> list[bytes]:
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(anext(aiter(process)), 0.05)
        for word in (b"one\n", b"two\n", b""):
            client.words.put(word)
        return [line async for line in process]

    assert asyncio.run(main()) == [b"one\n", b"two\n"]
    client.words.put(b"")


def test_many_that_wait_hold_up_no_other(
    spoken: tuple[Spoken, aio.AsyncSandboxProcess],
) -> None:
    client, process = spoken

    async def main() -> None:
        waiting = [asyncio.create_task(process.wait()) for _ in range(60)]
        await asyncio.sleep(0)
        with pytest.raises(vmrunner.NotFinished):
            await process.wait(timeout=0.01)
        client.words.put(b"")
        assert await asyncio.gather(*waiting) == [0] * 60

    asyncio.run(main())


def test_a_thread_ends_that_nobody_waits_for(
    spoken: tuple[Spoken, aio.AsyncSandboxProcess],
) -> None:
    _, process = spoken

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)

    asyncio.run(main())
    wait_for(lambda: not threads())
