"""The process between a VM with an allow-list and the internet.

Its listening sockets lie in the network that the VM is in, and nothing else is in there. All that
it asks for itself goes out by its own network, behind the rules of network `open`. It reads the
host that is asked for (TLS: the server name; port 80: the Host), and connects to an address that it
looked up for that very name. The address that the guest dialled plays no part.

Everything is bounded: connections, their buffers and rate, names. Further connections wait in the
kernel's queue. One VM has one such process, which dies with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Final

import dns.asyncbackend

from vmrunner.lib.token_bucket import Bucket, Limit
from vmrunner.model import AllowList
from vmrunner.model.allow_list import HTTP
from vmrunner.providers.qemu.allow import client_hello, dns_answers
from vmrunner.providers.qemu.allow.client_hello import HelloRefused
from vmrunner.providers.qemu.allow.http_request import HttpRequest, refusal
from vmrunner.providers.qemu.allow.lookup import Lookup, NoAddress

DNS: Final = 53
CONNECTIONS: Final = 256  # at once
NEW: Final = Limit(burst=128, rate=64)  # connections
QUESTIONS: Final = Limit(burst=512, rate=256)
_BACKLOG: Final = 64  # connections that the kernel keeps for each port
_BUFFER: Final = 32768  # bytes of one direction of a connection
_FIRST: Final = 10.0  # seconds until the host that is asked for is known
_READS: Final = 64  # that it may take
_CONNECT: Final = 5.0  # seconds that an address may take
_ADDRESSES: Final = 4  # of one name that are tried
_ASKING: Final = 5.0  # seconds that a connection for a question may take
_HALF: Final = 3600.0  # seconds that one way may go on after the other's end
_FLUSH: Final = 60.0  # seconds that the last bytes of a connection may take
#: Fatal alerts, which programs tell their users: `access_denied`; `internal_error` where a name
#: that may be reached cannot be.
DENIED: Final = bytes.fromhex("15030300020231")
FAILED: Final = bytes.fromhex("15030300020250")


class ListenSockets:
    """The sockets of one VM, made in its network."""

    def __init__(self, address: str, ports: Iterable[int]) -> None:
        self.address = address
        self.questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.questions.bind((address, DNS))
        self.servers = {
            port: socket.create_server((address, port), backlog=_BACKLOG) for port in (DNS, *ports)
        }
        for sock in self._all():
            sock.setblocking(False)

    def filenos(self) -> list[int]:
        return [sock.fileno() for sock in self._all()]

    def close(self) -> None:
        for sock in self._all():
            sock.close()

    def _all(self) -> tuple[socket.socket, ...]:
        return (self.questions, *self.servers.values())


class AllowProxy:
    """One VM's proxy."""

    def __init__(self, allow: AllowList, resolver: str) -> None:
        self._allow = allow
        self._lookup = Lookup(allow, resolver)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._new = Bucket(NEW, time.monotonic)
        self._questions = Bucket(QUESTIONS, time.monotonic)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, sockets: ListenSockets) -> None:
        """Serve until the process is ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer(sockets.questions, sockets.address))
            for port, server in sockets.servers.items():
                group.create_task(self._accept(port, server, sockets.address))

    async def _accept(self, port: int, server: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await _paced(self._new)
            try:
                connection, _ = await loop.sock_accept(server)
            except OSError:  # it was reset meanwhile
                continue
            await self._slots.acquire()
            task = loop.create_task(self._attend(port, connection, address))
            self._tasks.add(task)  # the loop itself keeps no task alive
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled():
            task.exception()  # seen

    async def _attend(self, port: int, connection: socket.socket, address: str) -> None:
        """Serve one connection. An error ends it alone."""
        with contextlib.suppress(Exception):
            async with _streams(connection) as (reader, writer):
                if port == DNS:
                    await self._answer_stream(reader, writer, address)
                elif port == HTTP:
                    await self._http(port, reader, writer)
                else:
                    await self._tls(port, reader, writer)

    # --- names ---

    async def _answer(self, questions: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await _paced(self._questions)
            with contextlib.suppress(OSError):
                question, peer = await loop.sock_recvfrom(questions, dns_answers.QUESTION_BYTES + 1)
                answer = dns_answers.answer(question, self._allow, address)
                if answer is not None:
                    await loop.sock_sendto(questions, answer, peer)

    async def _answer_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
    ) -> None:
        async with asyncio.timeout(_ASKING):
            size = int.from_bytes(await reader.readexactly(2))
            if size > dns_answers.QUESTION_BYTES:
                return
            await _paced(self._questions)
            answer = dns_answers.answer(await reader.readexactly(size), self._allow, address)
            if answer is not None:
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()

    # --- connections ---

    async def _tls(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        hello, name = b"", None
        try:
            async with asyncio.timeout(_FIRST):
                async for data in _first(reader):
                    hello += data
                    if (name := client_hello.server_name(hello)) is not None:
                        break
            connection = await self._connect(name, port)
        except (HelloRefused, OSError) as error:
            writer.write(DENIED if isinstance(error, HelloRefused) else FAILED)
            await writer.drain()
            return
        async with _streams(connection) as (server_reader, server_writer):
            server_writer.write(hello)
            await _both(_copy(reader, server_writer), _copy(server_reader, writer))

    async def _http(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request, name = HttpRequest(port), None
        try:
            async with asyncio.timeout(_FIRST):
                async for data in _first(reader):
                    request.feed(data)
                    if (name := request.host()) is not None:
                        break
            connection = await self._connect(name, port)
        except (HelloRefused, OSError) as error:
            status = 403 if isinstance(error, HelloRefused) else 502
            writer.write(refusal(status, str(error)))
            await writer.drain()
            return
        async with _streams(connection) as (server_reader, server_writer):
            await _both(_send(request, reader, server_writer), _copy(server_reader, writer))

    async def _connect(self, name: str | None, port: int) -> socket.socket:
        """Return a connection to a permitted name. Raises HelloRefused for every other, NoAddress
        and OSError."""
        if name is None:
            raise HelloRefused("no name")
        if not self._allow.permits(name, port):
            raise HelloRefused(f"{name}:{port} is not on the allow-list")
        loop = asyncio.get_running_loop()
        failed: OSError = NoAddress(f"{name} does not answer")
        for address in (await self._lookup.addresses(name))[:_ADDRESSES]:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                async with asyncio.timeout(_CONNECT):
                    await loop.sock_connect(connection, (address, port))
            except OSError as error:  # the time that is over, too
                connection.close()
                failed = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise failed


async def _paced(bucket: Bucket) -> None:
    """Wait for a token, and take it."""
    while (seconds := bucket.wait(1)) > 0:
        await asyncio.sleep(seconds)
    bucket.take(1)


@contextlib.asynccontextmanager
async def _streams(
    connection: socket.socket,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Streams over a connection, with small buffers. At the end it is closed, with what is still
    to be sent; after an error at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader, writer = await asyncio.open_connection(sock=connection, limit=_BUFFER)
    writer.transport.set_write_buffer_limits(_BUFFER)
    try:
        yield reader, writer
        writer.close()
        async with asyncio.timeout(_FLUSH):
            await writer.wait_closed()
    finally:
        writer.transport.abort()


async def _first(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield what comes, until the end or a number of reads that no program needs."""
    for _ in range(_READS):
        if not (data := await reader.read(4096)):
            return
        yield data


async def _both(*ways: Coroutine[None, None, None]) -> None:
    """Run both ways of a connection until their ends, or until one fails. When one has ended, the
    other has its time: a peer that hung up may never return, and a waiting server does not hear."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(_HALF):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_BUFFER):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _send(
    request: HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send one request, as it comes, and nothing after it. The server closes the connection when it
    has answered."""
    while True:
        for data in request.sent():
            writer.write(data)
        await writer.drain()
        if request.done:
            break
        request.feed(await reader.read(_BUFFER))
    while await reader.read(_BUFFER):
        pass


def preload() -> None:
    """Load what dnspython loads when it first needs it: later no file is there."""
    dns.asyncbackend.set_default_backend("asyncio")
    for kind in ("IN.A", "ANY.CNAME", "ANY.SOA", "ANY.OPT"):
        importlib.import_module(f"dns.rdtypes.{kind}")


def run(allow: AllowList, resolver: str, sockets: ListenSockets) -> None:
    """Serve, until the process is ended."""
    asyncio.run(AllowProxy(allow, resolver).serve(sockets))
