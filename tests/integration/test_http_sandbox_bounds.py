"""Sandboxes over HTTP: what one caller may hold, and what a guest may answer."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest

import vmrunner
from tests.integration.test_http_sandboxes import Pretended, served
from tests.support.http_service import Service, only
from tests.support.sshd import wait_for
from vmrunner.guest.command_records import AT_ONCE
from vmrunner.model import CommandSummary, FileEntry, TokenScope
from vmrunner.server import application
from vmrunner.server.application import UPLOADS
from vmrunner.services.client import host, http_client

pytestmark = pytest.mark.timeout(60)
__all__ = ["served"]

Served = tuple[Service, Pretended]


@pytest.fixture
def path(served: Served) -> str:
    service, _ = served
    client = service.client()
    made = only(client.post("/api/v1/sandboxes", json={"ttl": "5m"}))
    path = f"/api/v1/sandboxes/{made['id']}"
    wait_for(lambda: only(client.get(path))["state"] == "running")
    return path


def movers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sandbox file"]


def test_a_refused_stream_leaves_no_thread(served: Served, path: str) -> None:
    service, pretended = served
    pretended.files["/work/x"] = bytes(32 << 20)
    settings = service.parts.settings()
    few = settings.model_copy(update={"server": settings.server.model_copy(update={"streams": 1})})
    service.use(replace(service.parts, settings=lambda: few, sandbox=lambda _: pretended))
    client = service.client()
    with client.stream("GET", f"{path}/files?path=x") as first:
        assert first.status_code == 200
        assert [client.get(f"{path}/files?path=x").status_code for _ in range(3)] == [429] * 3
        wait_for(lambda: len(movers()) == 1)
    wait_for(lambda: not movers())


def test_a_file_waits_for_its_place_and_is_whole(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service, pretended = served
    monkeypatch.setattr(http_client, "RETRY_PAUSE", 0.05)
    caplog.set_level(logging.INFO, "vmrunner")
    token = service.token()
    head = (
        f"PUT {path}/files?path=/work/half HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n"
    )
    with vmrunner.Runner(url=service.url, token=token) as runner, ExitStack() as stack:
        sandbox = vmrunner.Sandbox.connect(path.rpartition("/")[2], runner=runner)
        for _ in range(UPLOADS):
            address = ("127.0.0.1", service.listener.port)
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(head.encode() + b"half of it")
        wait_for(lambda: pretended.writers == UPLOADS)
        writer = threading.Thread(target=lambda: sandbox.files.write("x", b"all of it"))
        writer.start()
        wait_for(lambda: "asked again" in caplog.text)
        stack.close()
        writer.join()
    assert pretended.files == {"/work/x": b"all of it"}


def test_all_commands_of_a_sandbox_are_read_at_once(served: Served, path: str) -> None:
    service, pretended = served
    client = service.client()
    pretended.answers.clear()
    readers = [
        threading.Thread(target=lambda: client.get(f"{path}/execs"), daemon=True)
        for _ in range(AT_ONCE)
    ]
    for reader in readers:
        reader.start()
    wait_for(lambda: pretended.looks == AT_ONCE)
    pretended.answers.set()
    for reader in readers:
        reader.join()


def test_who_may_only_read_sees_no_file(served: Served, path: str) -> None:
    service, pretended = served
    pretended.files["/run/secrets/TOKEN"] = b"secret"
    reader = service.client(service.token(frozenset({TokenScope.READ})))
    for what in ("content", "list", "stat"):
        answer = reader.get(f"{path}/files?path=/run/secrets/TOKEN&what={what}")
        assert answer.status_code == 403


def test_a_guest_calls_and_dates_things_as_it_likes(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, pretended = served
    odd = FileEntry(
        name="\udcff", path="/\udcff", kind="file", size=1, mode=0o644, modified=1e18
    )  # fmt: skip
    monkeypatch.setattr(pretended, "list_files", lambda _: [odd, replace(odd, modified=-1e18)])
    monkeypatch.setattr(pretended, "commands", lambda: [CommandSummary(id="c", title="\ud800")])
    listed = service.client().get(f"{path}/files?path=/&what=list")
    assert [item["modified_at"][:4] for item in listed.json()["items"]] == ["9999", "0001"]
    assert only(service.client().get(f"{path}/execs"))["id"] == "c"
    with vmrunner.Runner(url=service.url, token=service.token()) as runner:
        sandbox = vmrunner.Sandbox.connect(path.rpartition("/")[2], runner=runner)
        for work in (sandbox.files.read, sandbox.files.stat, sandbox.files.make_dir):
            with pytest.raises(vmrunner.ConfigError, match="not UTF-8"):
                work("/\udcff")


def test_nothing_is_said_for_a_build_that_ended(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = served
    monkeypatch.setattr(host, "RENEW", 0.02)
    with vmrunner.Runner(url=service.url, token=service.token()) as runner:
        runner.run("say x")
        kept = runner._host._kept
        wait_for(lambda: not kept)


def test_who_sends_stdin_slowly_holds_a_place_and_no_more(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "SANDBOX_CALLS", 1)
    service, _ = served
    client = service.client()
    to = f"{path}/execs/c1/stdin"
    head = (
        f"PUT {to} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['Authorization']}\r\n"
        "Content-Length: 100\r\n\r\n"
    )
    with ExitStack() as slow:

        def refused() -> bool:
            """One that comes while another is answered has no place itself: then one more."""
            connection = socket.create_connection(("127.0.0.1", service.listener.port))
            slow.enter_context(connection).sendall(head.encode() + b"half of it")
            return client.put(to, content=b"x").status_code == 429

        wait_for(refused)
    wait_for(lambda: client.put(to, content=b"x").status_code == 200)


def test_more_commands_than_places_are_run_all_the_same(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "RETRY_PAUSE", 0.05)
    monkeypatch.setattr(application, "SANDBOX_CALLS", 1)
    service, pretended = served
    token = service.token()
    pretended.answers.clear()
    with vmrunner.Runner(url=service.url, token=token) as runner:
        sandbox = vmrunner.Sandbox.connect(path.rpartition("/")[2], runner=runner)
        holder = threading.Thread(target=sandbox._client.commands)
        holder.start()
        wait_for(lambda: pretended.looks == 1)
        codes: list[int] = []
        other = threading.Thread(target=lambda: codes.append(sandbox.popen("true").wait()))
        other.start()
        other.join(timeout=0.5)
        pretended.answers.set()
        other.join(timeout=30)
        holder.join()
    assert codes == [3]
