"""Sandboxes over HTTP: the routes, and the Python API that speaks to them."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

import vmrunner
from tests.support import http_service
from tests.support.command_line import isolated
from tests.support.http_service import OTHERS, Service, only
from tests.support.sshd import wait_for
from vmrunner.errors import Conflict, NotFinished, NotFound, SandboxOver
from vmrunner.model import (
    CommandEnd,
    CommandOrder,
    CommandOutput,
    CommandSummary,
    FileEntry,
    StreamName,
)
from vmrunner.server import application

pytestmark = pytest.mark.timeout(60)


class Pretended:
    """A sandbox whose commands write their last word and what they are sent, and whose files are a
    dict. One with stdin ends when it was sent some."""

    def __init__(self) -> None:
        self.orders: dict[str, CommandOrder] = {}
        self.input: dict[str, bytes] = {}
        self.signals: list[tuple[str, int]] = []
        self.files: dict[str, bytes] = {}
        self.over = False
        self.writers = 0
        self.busy = 0  # so often no input is taken
        self.answers = threading.Event()
        self.answers.set()
        self.looks = 0

    def start(self, order: CommandOrder) -> None:
        if self.over:
            raise SandboxOver("sandbox b-1 is over: success, user")
        if self.orders.setdefault(order.id, order) != order:
            raise Conflict(f"command {order.id} is another one")

    def run(
        self, order: CommandOrder, on_output: Callable[[StreamName, bytes], object]
    ) -> CommandEnd:
        self.start(order)
        output, at = self.read(order.id, 0, 0, 0.0), 0
        while output.end is None:
            on_output(StreamName.STDOUT, output.stdout)
            at = output.next_stdout
            output = self.read(order.id, at, 0, 0.0)
        on_output(StreamName.STDOUT, output.stdout)
        return output.end

    def read(self, command: str, stdout: int, stderr: int, wait: float) -> CommandOutput:
        if command not in self.orders:
            raise NotFound(f"no command {command!r} was started in this sandbox")
        word = self.orders[command].argv[-1].encode() + self.input.get(command, b"")
        piece = word[stdout : stdout + 4]
        awaited = self.orders[command].stdin and command not in self.input
        more = awaited or len(word) > stdout + 4
        end = None if more else CommandEnd(exit_code=3, timed_out=False, seconds=0.5)
        return CommandOutput(
            stdout=piece, stderr=b"", next_stdout=stdout + len(piece), next_stderr=stderr, end=end
        )

    def send_input(
        self, command: str, offset: int, data: bytes, *, last: bool = False, wait: float = 0.0
    ) -> None:
        if self.busy:
            self.busy -= 1
            raise NotFinished("it does not read")
        have = self.input.get(command, b"")
        self.input[command] = have + data[len(have) - offset :]

    def signal(self, command: str, number: int) -> None:
        self.signals.append((command, number))

    def commands(self) -> list[CommandSummary]:
        self.looks += 1
        self.answers.wait()
        return [
            CommandSummary(id=command.id, title=command.title) for command in self.orders.values()
        ]

    def read_file(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        if path not in self.files:
            raise NotFound(f"{path}: No such file or directory")
        data = self.files[path]
        for at in range(0, len(data), 1 << 16):
            on_bytes(data[at : at + (1 << 16)])

    def write_file(self, path: str, data: Iterable[bytes]) -> None:
        if path.startswith("/proc"):
            raise Conflict(f"{path}: Permission denied")
        self.writers += 1
        try:
            self.files[path] = b"".join(data)
        finally:
            self.writers -= 1

    pack_files, unpack_files = read_file, write_file

    def stat_file(self, path: str) -> FileEntry:
        return FileEntry(
            name=path.rpartition("/")[2], path=path, kind="file",
            size=len(self.files[path]), mode=0o644, modified=1.0,
        )  # fmt: skip

    def list_files(self, path: str) -> list[FileEntry]:
        return [self.stat_file(name) for name in sorted(self.files) if name.startswith(path)]

    def remove_file(self, path: str) -> None:
        self.files.pop(path)

    def make_dir(self, path: str) -> None:
        self.files[path] = b""

    def close(self) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, Pretended]]:
    isolated(tmp_path, monkeypatch)
    pretended = Pretended()
    with http_service.service(tmp_path) as service:
        service.use(replace(service.parts, sandbox=lambda _: pretended))
        host = service.runner._host  # an engine of this process drives what is submitted
        host.ensure("fake", staying=True)
        yield service, pretended


@pytest.fixture
def sandbox(served: tuple[Service, Pretended]) -> Iterator[vmrunner.Sandbox]:
    service, _ = served
    runner = vmrunner.Runner(url=service.url, token=service.token())
    with contextlib.closing(runner), vmrunner.Sandbox.create(runner=runner, ttl="5m") as sandbox:
        yield sandbox


def test_python_runs_commands_over_http(
    served: tuple[Service, Pretended], sandbox: vmrunner.Sandbox
) -> None:
    _, pretended = served
    texts: list[str] = []
    done = sandbox.run(["echo", "hello world"], env={"A": "1"}, on_stdout=texts.append)
    assert (done.stdout, done.exit_code, done.seconds) == ("hello world", 3, 0.5)
    assert "".join(texts) == "hello world"
    assert len(texts) > 1
    (order,) = pretended.orders.values()
    assert (order.argv, order.env, order.cwd) == (("echo", "hello world"), {"A": "1"}, "/work")
    process = sandbox.popen(["cat", "x"], stdin=True)
    process.write(b"yz\n")
    assert list(process) == [b"xyz\n"]
    process.kill()
    assert pretended.signals == [(process.id, 9)]
    pretended.busy = 2
    sandbox.send_input(process.id, 3, b"more")
    assert pretended.input[process.id] == b"yz\nmore"


def test_python_has_its_files_over_http(
    served: tuple[Service, Pretended], sandbox: vmrunner.Sandbox, tmp_path: Path
) -> None:
    _, pretended = served
    data = bytes(range(256)) * 2000
    sandbox.files.write("a/b", data)
    assert pretended.files == {"/work/a/b": data}
    assert sandbox.files.read("/work/a/b") == data
    assert [entry.path for entry in sandbox.files.list()] == ["/work/a/b"]
    assert sandbox.files.stat("a/b").size == len(data)
    (tmp_path / "f").write_bytes(b"up")
    sandbox.upload(tmp_path / "f", "/work/d")
    assert sandbox.download("/work/d/f", tmp_path / "g").read_bytes() == b"up"
    sandbox.files.make_dir("e")
    sandbox.files.remove("a/b")
    with pytest.raises(NotFound, match="No such file"):
        sandbox.files.read("a/b")
    with pytest.raises(Conflict, match="Permission denied"):
        sandbox.files.write("/proc/x", b"1")


def test_one_that_is_over_says_so(
    served: tuple[Service, Pretended], sandbox: vmrunner.Sandbox
) -> None:
    service, pretended = served
    pretended.over = True
    sandbox.kill()
    service.ended(sandbox.id)
    with pytest.raises(SandboxOver, match="is over"):
        sandbox.run("true")


def test_the_routes(served: tuple[Service, Pretended]) -> None:
    service, pretended = served
    client = service.client()
    made = only(client.post("/api/v1/sandboxes", json={"ttl": "5m", "labels": {"team": "a"}}))
    path = f"/api/v1/sandboxes/{made['id']}"
    wait_for(lambda: only(client.get(path))["state"] == "running")
    assert only(client.get(path))["network"] == "none"
    assert only(client.get("/api/v1/sandboxes?label=team=a"))["id"] == made["id"]
    assert client.get("/api/v1/sandboxes?label=team=b").json()["items"] == []
    body = {"id": "c1", "argv": ["echo", "hello"]}
    assert client.post(f"{path}/execs", json=body).status_code == 201
    assert client.post(f"{path}/execs", json=body).status_code == 201
    other = client.post(f"{path}/execs", json={**body, "argv": ["true"]})
    assert (other.status_code, other.json()["error"]) == (409, "Conflict")
    read = only(client.get(f"{path}/execs/c1"))
    assert (base64.b64decode(read["stdout"]), read["next"], read["end"]) == (
        b"hell",
        {"stdout": 4, "stderr": 0},
        None,
    )
    read = only(client.get(f"{path}/execs/c1?stdout=4"))
    assert (base64.b64decode(read["stdout"]), read["end"]["exit_code"]) == (b"o", 3)
    assert only(client.get(f"{path}/execs"))["state"] == "running"
    assert client.get(f"{path}/execs/none").status_code == 404
    put = client.put(f"{path}/execs/c1/stdin?offset=0&last=true", content=b"in")
    assert only(put)["taken"] == 2
    assert client.delete(f"{path}/execs/c1?signal=15").status_code == 200
    assert pretended.signals == [("c1", 15)]
    got = client.put(f"{path}/files?path=/work/x", content=b"<script>")
    assert got.status_code == 200
    got = client.get(f"{path}/files?path=/work/x")
    assert (got.content, got.headers["content-type"]) == (b"<script>", "application/octet-stream")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert client.delete(path).status_code == 200
    assert service.ended(made["id"]).result is vmrunner.Result.SUCCESS


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"ttl": "5m", "steps": ["make"]}),
        ("POST", "", {"artifacts": ["dist/*"]}),
        ("POST", "", {"caches": [{"key": "k", "path": "/root/.cache"}]}),
        ("POST", "", {"timeout": "5m"}),
        ("POST", "", {"ttl": "nonsense"}),
        ("POST", "", {"ttl": "100h"}),
        ("POST", "", {"network": ""}),
        ("POST", "/execs", {"id": "../x", "argv": ["true"]}),
        ("POST", "/execs", {"id": "c1", "argv": []}),
        ("POST", "/execs", {"id": "c1", "argv": ["a\0b"]}),
        ("POST", "/execs", {"id": "c1", "argv": ["true"], "cwd": "x"}),
        ("POST", "/execs", {"id": "c1", "argv": ["true"], "comand": "x"}),
        ("GET", "/execs/c1?stdout=-1", None),
        ("GET", "/files", None),
        ("DELETE", "/execs/c1?signal=0", None),
    ],
)
def test_bad_input_is_refused_with_its_field(
    served: tuple[Service, Pretended], method: str, path: str, body: dict[str, object] | None
) -> None:
    service, pretended = served
    client = service.client()
    if path:
        made = only(client.post("/api/v1/sandboxes", json={"ttl": "5m"}))
        path = f"/{made['id']}{path}"
    before = len(service.runner.list())
    answer = client.request(method, f"/api/v1/sandboxes{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["fix"] or answer.json()["field"]
    assert len(service.runner.list()) == before
    assert not pretended.orders


@pytest.mark.parametrize("theirs", OTHERS)
def test_a_tenant_sees_its_own_sandboxes_alone(
    served: tuple[Service, Pretended], theirs: dict[str, str]
) -> None:
    service, _ = served
    ours, theirs = service.tenant(team="a"), service.tenant(**theirs)
    made = only(ours.post("/api/v1/sandboxes", json={"ttl": "5m"}))
    assert made["labels"] == {"team": "a"}
    path = f"/api/v1/sandboxes/{made['id']}"
    calls: list[Callable[[httpx2.Client], httpx2.Response]] = [
        lambda c: c.get(path),
        lambda c: c.delete(path),
        lambda c: c.post(f"{path}/execs", json={"id": "c1", "argv": ["true"]}),
        lambda c: c.get(f"{path}/execs"),
        lambda c: c.get(f"{path}/execs/c1"),
        lambda c: c.put(f"{path}/execs/c1/stdin", content=b"x"),
        lambda c: c.delete(f"{path}/execs/c1"),
        lambda c: c.get(f"{path}/files?path=/x"),
        lambda c: c.put(f"{path}/files?path=/x", content=b"x"),
        lambda c: c.delete(f"{path}/files?path=/x"),
    ]
    assert [call(theirs).status_code for call in calls] == [404] * len(calls)
    assert [call(service.client("vmr_no")).status_code for call in calls] == [401] * len(calls)
    assert theirs.get("/api/v1/sandboxes").json()["items"] == []
    assert only(ours.get("/api/v1/sandboxes"))["id"] == made["id"]


def test_a_broken_upload_is_no_file(served: tuple[Service, Pretended]) -> None:
    service, pretended = served
    made = only(service.client().post("/api/v1/sandboxes", json={"ttl": "5m"}))
    head = (
        f"PUT /api/v1/sandboxes/{made['id']}/files?path=/work/x HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {service.token()}\r\nContent-Length: 100\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.listener.port)) as connection:
        connection.sendall(head.encode() + b"half of it")
        wait_for(lambda: pretended.writers == 1)
    wait_for(lambda: not pretended.writers)
    assert pretended.files == {}


def test_a_vm_that_answers_nothing_holds_up_nobody(
    served: tuple[Service, Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "SANDBOX_CALLS", 14)
    service, pretended = served
    client = service.client()
    made = only(client.post("/api/v1/sandboxes", json={"ttl": "5m"}))
    pretended.answers.clear()
    path = f"/api/v1/sandboxes/{made['id']}/execs"
    clients = [service.client() for _ in range(4)]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: statuses.append(clients[n % 4].get(path).status_code))
        for n in range(60)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: pretended.looks >= 4 * 14)
    assert client.get("/healthz").status_code == 200
    assert only(client.get(f"/api/v1/builds/{made['id']}"))["id"] == made["id"]
    pretended.answers.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 429}


def test_a_build_is_no_sandbox_there(served: tuple[Service, Pretended]) -> None:
    service, _ = served
    client = service.client()
    made = only(client.post("/api/v1/builds", json={"steps": ["say x"]}))
    answer = client.post(
        f"/api/v1/sandboxes/{made['id']}/execs", json={"id": "c1", "argv": ["true"]}
    )
    assert (answer.status_code, answer.json()["error"]) == (409, "Conflict")
