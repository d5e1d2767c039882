"""A port of a VM in a real browser: its page works, and has nothing of the server's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Visitor, chromium
from tests.support.entered import ENTER, Entered, entered
from tests.support.sandboxes import SandboxWorld
from tests.support.sandboxes import sandbox as sandbox  # the fixture
from tests.support.session_world import sshd as sshd
from tests.support.session_world import world as world
from tests.support.sshd import Sshd
from tests.support.web_service import WebService
from vmrunner.model import TokenScope

pytestmark = pytest.mark.timeout(120)
PAGE = b"""<!doctype html><title>begun</title><link rel=stylesheet href=look.css><p id=p>p</p>
<script type=module src=app.js></script>"""
#: It reads its own data, and tries what its server would let a page of its own do.
APP = b"""
const data = await (await fetch('data', {method: 'PUT', body: 'x'})).json();
const tries = {};
const own = location.origin;
for (const [name, attempt] of Object.entries({
  cookie: () => { document.cookie = 'vmrunner_login_1=evil; path=/'; return document.cookie; },
  storage: () => localStorage.setItem('x', '1'),
  worker: () => navigator.serviceWorker.register('app.js'),
  builds: async () => (await fetch('/api/v1/builds', {credentials: 'include'})).status,
  page: async () => (await fetch('/', {credentials: 'include'})).status,
})) {
  try { tries[name] = String(await attempt()); } catch (error) { tries[name] = error.name; }
}
document.querySelector('#p').textContent = JSON.stringify({
  method: data.method, origin: self.origin, tries,
  look: getComputedStyle(document.querySelector('#p')).color,
});
document.title = 'done';
"""


@pytest.fixture
def served(
    tmp_path: Path, sandbox: SandboxWorld, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Entered]:
    with entered(tmp_path, sshd, monkeypatch) as found:
        found.running("b-2", sandbox_ttl=600.0, steps=())
        yield found


def test_a_hostile_page_works_and_reaches_nothing(served: Entered, tmp_path: Path) -> None:
    web = WebService()
    web.answers["/"] = (200, [("Content-Type", "text/html")], PAGE)
    web.answers["/app.js"] = (200, [("Content-Type", "text/javascript")], APP)
    web.answers["/look.css"] = (200, [("Content-Type", "text/css")], b"p { color: rgb(1, 2, 3) }")
    with chromium(tmp_path / "profile") as browser:
        visitor = Visitor(browser, served.http.url, served.token(scopes=ENTER | {TokenScope.READ}))
        page = visitor.page
        page.goto(f"{served.http.url}/api/v1/builds/b-2/ports/{web.port}/")
        page.wait_for_function("document.title === 'done'")
        found = page.evaluate("JSON.parse(document.querySelector('#p').textContent)")
        cookies = {cookie["name"] for cookie in visitor.context.cookies()}
    web.close()
    assert (found["method"], found["origin"], found["look"]) == ("PUT", "null", "rgb(1, 2, 3)")
    refused = {"SecurityError", "TypeError", "InvalidStateError", "NotSupportedError"}
    assert set(found["tries"].values()) <= refused, found["tries"]
    assert "vmrunner_login_1" not in cookies
    sent = [request["headers"] for request in web.requests]
    assert not any("cookie" in headers for headers in sent)
