"""The guard's code on its way into an app of the Flex Consumption plan."""

from __future__ import annotations

import io
import json
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from deploy.azure import publish

APP: Final = (
    "/subscriptions/s/resourceGroups/vmrunner-guard/providers/Microsoft.Web/sites/vmrunner-guard-1"
)
DEPLOY: Final = Path(publish.__file__).parent


class FlexApp(ThreadingHTTPServer):
    """An app as Resource Manager shows it, and its host for deployments, which takes code at
    /api/publish alone. `refusals`: what it answers before it takes any."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.plan = "flex"
        self.status = publish.SUCCEEDED
        self.refusals: list[int] = []
        self.code: bytes | None = None
        self.requests: list[str] = []

    def functions(self) -> list[str]:
        """As the host finds them: in files that it may read."""
        if self.code is None:
            return []
        with zipfile.ZipFile(io.BytesIO(self.code)) as archive:
            modes = {member.filename: member.external_attr >> 16 for member in archive.infolist()}
        readable = all(mode & stat.S_IROTH for mode in modes.values())
        return ["guard"] if readable and {"function_app.py", "host.json"} <= set(modes) else []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        app = self._app()
        path = urlsplit(self.path).path
        if path == APP:
            hosts = [{"name": urlsplit(app.url).netloc, "hostType": "Repository"}]
            self._tell(200, {"properties": {"hostNameSslStates": hosts}})
        elif path == f"{APP}/functions":
            self._tell(200, {"value": [{"name": name} for name in app.functions()]})
        elif path == "/api/deployments/latest":
            self._tell(200, {"status": app.status, "status_text": "no room"})
        else:
            self._tell(404, {})

    def do_POST(self) -> None:
        app, parts = self._app(), urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        app.requests.append(self.path)
        home = {"flex": "/api/publish", "classic": "/api/zipdeploy"}[app.plan]
        if parts.path != home or self.headers["Content-Type"] != "application/zip":
            self._tell(404, "Not Found")
        elif self.headers["Authorization"] != "Bearer of-the-test":
            self._tell(401, "")
        elif app.refusals:
            self._tell(app.refusals.pop(), "not yet")
        else:
            assert parse_qs(parts.query)["RemoteBuild"] == ["false"]
            app.code = body
            self._tell(202, "deployment-1")

    def _app(self) -> FlexApp:
        assert isinstance(self.server, FlexApp)
        return self.server

    def _tell(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def app() -> Iterator[FlexApp]:
    made = FlexApp()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def sent(app: FlexApp, code: bytes | None = None, token: str = "of-the-test") -> list[str]:
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds

    return publish.App(APP, token, base=app.url, clock=lambda: time[0], sleep=sleep).publish(
        publish.package(DEPLOY / "guard") if code is None else code
    )


def test_the_code_arrives_and_the_host_finds_it(app: FlexApp) -> None:
    app.refusals = [503, 401]  # rights and hosts of a new app are not there at once
    assert sent(app) == ["guard"]
    assert len(app.requests) == 3
    assert app.code is not None
    with zipfile.ZipFile(io.BytesIO(app.code)) as archive:
        code = archive.read("function_app.py")
    assert code == (DEPLOY / "guard/function_app.py").read_bytes()


def test_an_app_that_shows_no_function_is_not_published(app: FlexApp) -> None:
    """A package whose files the host may not read is accepted, and holds nothing."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in publish.FILES:
            archive.writestr(zipfile.ZipInfo(name), b"")
    with pytest.raises(publish.NotPublished, match="shows no function"):
        sent(app, packed.getvalue().replace(b"\x80\x01", b"\x00\x00"))


def test_a_deployment_that_failed_is_told(app: FlexApp) -> None:
    app.status = publish.FAILED
    with pytest.raises(publish.NotPublished, match="failed: no room"):
        sent(app)


def test_another_plan_is_told_at_once(app: FlexApp) -> None:
    app.plan = "classic"
    with pytest.raises(publish.NotPublished, match=r"404.*no app of Flex"):
        sent(app)
    assert len(app.requests) == 1


def test_who_has_no_rights_is_told(app: FlexApp) -> None:
    with pytest.raises(publish.NotPublished, match="was not accepted: 401"):
        sent(app, token="of-somebody")


def test_the_command_tells_what_it_did(
    app: FlexApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VMRUNNER_AZURE_TOKEN", "of-the-test")
    words = APP.split("/")
    assert publish.main([words[2], words[4], words[-1]], base=app.url) == 0
    assert "guard published" in capsys.readouterr().out
    assert publish.main(["s"]) == 2
