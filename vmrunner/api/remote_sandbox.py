"""A sandbox of a server: its commands and files, over HTTP."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from vmrunner.errors import NotFinished, ServerUnreachable
from vmrunner.lib import cancellation
from vmrunner.model import CommandEnd, CommandOrder, CommandSummary, FileEntry, StreamName
from vmrunner.services.client import HttpClient
from vmrunner.services.client.decoding import command_end, command_summary, file_entry
from vmrunner.services.client.http_client import patiently, segment
from vmrunner.services.command_output import OnOutput

if TYPE_CHECKING:
    from vmrunner.services.client.websocket import RemoteCommand

TAR: Final = "application/x-tar"
BYTES: Final = "application/octet-stream"
INPUT: Final = 4 << 20  # bytes of stdin in one request
AWAY: Final = 60.0  # seconds that a server which does not answer is waited for
OUTPUT_RETRY: Final = 1.0


class RemoteSandbox:
    """`SandboxAccess` over a server."""

    def __init__(self, client: HttpClient, sandbox: str) -> None:
        self._http = client
        self._path = f"/sandboxes/{segment(sandbox)}"
        self._terminals: WeakSet[RemoteCommand] = WeakSet()

    def run(self, order: CommandOrder, on_output: OnOutput) -> CommandEnd:
        offsets = {"stdout": 0, "stderr": 0}
        started, since = False, None
        while True:
            cancellation.check()
            try:
                if not started:
                    self.start(order)
                    started = True
                found = self._one(f"{self._path}/execs/{segment(order.id)}", **offsets)
            except ServerUnreachable:
                since = since or time.monotonic()
                if time.monotonic() - since >= AWAY:
                    raise
                time.sleep(OUTPUT_RETRY)
                continue
            since, offsets = None, found["next"]
            for stream in StreamName:
                if data := base64.b64decode(found[stream.value]):
                    on_output(stream, data)
            if found["end"] is not None:
                return command_end(found["end"])

    def start(self, order: CommandOrder) -> None:
        values: Mapping[str, Any] = {
            **asdict(order),
            "argv": list(order.argv),
            "env": dict(order.env),
        }
        body = {name: value for name, value in values.items() if value is not None}
        patiently(lambda: self._http.post(f"{self._path}/execs", body))

    def signal(self, command: str, number: int) -> None:
        self._delete(f"{self._path}/execs/{segment(command)}", signal=number)

    def send_input(self, command: str, offset: int, data: bytes, *, last: bool = False) -> None:
        path = f"{self._path}/execs/{segment(command)}/stdin"
        pieces = [data[at : at + INPUT] for at in range(0, len(data), INPUT)] or [b""]
        for number, piece in enumerate(pieces):
            self._put_input(path, offset, piece, last=last and number == len(pieces) - 1)
            offset += len(piece)

    def _put_input(self, path: str, offset: int, piece: bytes, *, last: bool) -> None:
        while True:
            cancellation.check()
            try:
                self._http.put(path, lambda: [piece], offset=offset, last=last)
            except NotFinished:  # it does not read yet: what it has taken it does not take again
                continue
            return

    def commands(self) -> list[CommandSummary]:
        return list(map(command_summary, self._listed(f"{self._path}/execs")))

    # --- files ---

    def read_file(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        self._read(path, BYTES, on_bytes)

    def write_file(self, path: str, data: Iterable[bytes]) -> None:
        """Write a file, whole or not at all, and the directories above it. `data` is iterated anew
        where it has to be sent again."""
        self._write(path, BYTES, data)

    def list_files(self, path: str) -> list[FileEntry]:
        return list(map(file_entry, self._listed(self._files, path=path, what="list")))

    def stat_file(self, path: str) -> FileEntry:
        return file_entry(self._one(self._files, path=path, what="stat"))

    def remove_file(self, path: str) -> None:
        self._delete(self._files, path=path)

    def make_dir(self, path: str) -> None:
        """Make a directory, and those above it."""
        self._http.put(self._files, list, path=path, what="dir")

    def pack_files(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        self._read(path, TAR, on_bytes)

    def unpack_files(self, path: str, tar: Iterable[bytes]) -> None:
        self._write(path, TAR, tar)

    # --- terminals and ports ---

    def terminal(self, order: CommandOrder, columns: int, rows: int) -> RemoteCommand:
        from vmrunner.services.client.websocket import RemoteCommand

        opened = RemoteCommand(
            self._http,
            f"{self._path}/terminal",
            order.argv,
            size=(columns, rows),
            env=order.env,
            cwd=order.cwd,
        )
        self._terminals.add(opened)
        return opened

    def forward(self, port: int, local: socket.socket) -> None:
        from vmrunner.services.client.port_relay import relay

        relay(self._http, f"{self._path}/ports/{port}", local)

    def close(self) -> None:
        """Hang up on its terminals. Other connections are the service's."""
        for terminal in list(self._terminals):
            terminal.close()

    # A token has so many calls at once: more of them wait for a place.

    def _one(self, path: str, /, **parameters: Any) -> dict[str, Any]:
        return patiently(lambda: self._http.one(path, **parameters))

    def _listed(self, path: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return patiently(lambda: self._http.listed(path, **parameters))

    def _delete(self, path: str, /, **parameters: Any) -> None:
        patiently(lambda: self._http.delete(path, **parameters))

    @property
    def _files(self) -> str:
        return f"{self._path}/files"

    def _read(self, path: str, accept: str, on_bytes: Callable[[bytes], object]) -> None:
        with self._http.stream(self._files, accept, path=path) as parts:
            for part in parts:
                on_bytes(part)

    def _write(self, path: str, kind: str, data: Iterable[bytes]) -> None:
        self._http.put(self._files, lambda: data, kind=kind, path=path)
