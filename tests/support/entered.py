"""A server over builds whose VM is a real sshd of this host, and callers who enter it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support import docker_terminal, ledger_builds
from tests.support.command_line import isolated
from tests.support.http_service import Service, service
from tests.support.session_world import _as
from tests.support.sshd import Proxy, Sshd
from vmrunner.core.boxes import DOCKER
from vmrunner.lib.channels import TCP
from vmrunner.model import Reason, Result, TokenScope
from vmrunner.services.entering import Entrance
from vmrunner.session.ssh import client

PROTOCOL = "vmrunner.terminal.v1"
ENTER = frozenset({TokenScope.ENTER})
TEAM = {"team": "a"}
_INIT = client.Dialer.__init__  # before anything is patched


class Entered:
    """`build` runs, of the tenant `team=a`."""

    def __init__(self, http: Service, sshd: Sshd, proxy: Proxy) -> None:
        self.http, self.sshd, self.proxy = http, sshd, proxy
        self.ledger = http.app.ledger
        self.elsewhere: set[str] = set()  # VMs that only another host reaches
        http.use(replace(http.parts, entrance=self.entrance))
        self.build = self.running("b-1")

    def entrance(self, build: str) -> Entrance:
        return Entrance(
            self.ledger,
            build,
            channel=lambda _: TCP,
            box=lambda _: DOCKER,
            reaches=lambda instance: instance.id not in self.elsewhere,
        )

    def running(self, build: str, *, tenant: str = '{"team": "a"}', **changes: Any) -> str:
        changes = {"labels": TEAM, "provider": "fake", **changes}
        vm = f"vm-{build}"
        ledger_builds.running(self.ledger, build, vm, tenant=tenant, **changes)
        assert self.ledger.instances.addresses([(vm, 1, self.proxy.address)]) == {vm}
        return build

    def hold(self) -> None:
        self.ledger.builds.hold(
            self.build, hold_until=2e9, epoch=1, now=105.0, result=Result.FAILURE,
            reason=Reason.EXIT_CODE,
        )  # fmt: skip

    def finish(self) -> None:
        self.ledger.builds.finish(
            self.build, epoch=1, now=110.0, result=Result.SUCCESS, reason=Reason.EXIT_CODE
        )

    def token(self, **options: Any) -> str:
        return self.http.token(options.pop("scopes", ENTER), labels=TEAM, **options)

    @contextmanager
    def socket(
        self, path: str = "builds/b-1/terminal", *, token: str | None = None, **options: Any
    ) -> Iterator[ClientConnection]:
        shown = self.token() if token is None else token
        headers = {"Authorization": f"Bearer {shown}"} if shown else {}
        url = f"{self.http.url.replace('http', 'ws', 1)}/api/v1/{path}"
        settings = {"subprotocols": [PROTOCOL], "compression": None, "proxy": None, **options}
        settings["additional_headers"] = {**headers, **settings.get("additional_headers", {})}
        with connect(url, **settings) as socket:
            yield socket

    @contextmanager
    def terminal(self, *command: str, **options: Any) -> Iterator[EnteredTerminal]:
        start = {
            name: options.pop(name)
            for name in ("tty", "container", "columns", "rows", "env", "cwd")
            if name in options
        }
        with self.socket(**options) as socket:
            send(socket, type="start", command=command, **start)
            yield EnteredTerminal(socket)


class EnteredTerminal:
    """The caller's end of one. `code` and `reason` are those of its close."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.shown = b""
        self.frames: list[dict[str, Any]] = []
        self.code: int | None = None
        self.reason = ""

    def until(self, true: Callable[[], object]) -> None:
        """Take frames until it is so, or the server has closed it."""
        while not true():
            try:
                frame = self.socket.recv(timeout=30)
            except ConnectionClosed as error:
                self.code = error.rcvd.code if error.rcvd else None
                self.reason = error.rcvd.reason if error.rcvd else ""
                assert true(), (self.code, self.reason, self.shown, self.frames)
                return
            if isinstance(frame, bytes):
                self.shown += frame
            else:
                self.frames.append(json.loads(frame))

    def shows(self, word: bytes) -> None:
        self.until(lambda: word in self.shown)

    def end(self) -> dict[str, Any]:
        """The last frame, once it is closed."""
        self.until(lambda: self.code is not None)
        return self.frames[-1] if self.frames else {}

    def type(self, text: bytes | str) -> None:
        self.socket.send(text.encode() if isinstance(text, str) else text)


def send(socket: ClientConnection, **frame: Any) -> None:
    socket.send(json.dumps(frame))


@contextmanager
def entered(
    root: Path, sshd: Sshd, patch: pytest.MonkeyPatch, **settings: Any
) -> Iterator[Entered]:
    isolated(root, patch)
    patch.setattr(ledger_builds, "ACCESS", sshd.access)
    patch.setattr(client.Dialer, "__init__", _as(sshd.user, _INIT))
    shutil.copyfile(docker_terminal.__file__, sshd.programs / "docker")
    (sshd.programs / "docker").chmod(0o755)
    (sshd.programs / "status").write_text("running")
    (sshd.programs / "env").write_text("export OF_THE_BUILD=yes\n")
    (root / "work").mkdir()
    with suppress(FileNotFoundError):
        (sshd.programs / "work").unlink()
    (sshd.programs / "work").symlink_to(root / "work")
    proxy = Proxy(sshd.address)
    with service(root, **settings) as http:
        try:
            yield Entered(http, sshd, proxy)
        finally:
            proxy.close()
