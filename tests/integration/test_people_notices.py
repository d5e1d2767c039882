"""Notices for people: short, plain, bounded, and no secret in what is said of a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.ledger_builds import running
from tests.support.webhook_receiver import named, waiting
from vmrunner.config.notify import NotifySettings
from vmrunner.errors import ConfigError
from vmrunner.ledger import Ledger
from vmrunner.model import Reason, Result, Step
from vmrunner.services import notice_text, notifications
from vmrunner.services.client import people
from vmrunner.services.notifications import OutboxSender, Webhook

PAGE = "https://builds.example.org/"


class Chat:
    """A service that takes notices. `answer` is done with each request."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda h: h.send_response(200)
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                chat.paths.append(self.path)
                size = int(self.headers.get("Content-Length", 0))
                chat.taken.append(json.loads(self.rfile.read(size) or b"{}"))
                chat.answer(self)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"json://127.0.0.1:{self._server.server_port}/secret-part-of-it".encode()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def chat() -> Iterator[Chat]:
    found = Chat()
    yield found
    found.close()


def document(**changes: Any) -> dict[str, Any]:
    build = {
        "id": "b-01m8rcwka81r0f99bp2gv8vy44", "name": "nightly", "result": "failure",
        "reason": "exit_code", "message": "",
        "steps": [{"run": "make", "exit_code": 0}, {"run": "make test", "exit_code": 2}],
    }  # fmt: skip
    return {"event": "build.ended", "items": [build | changes]}


def test_a_failure_is_one_line_with_step_and_link() -> None:
    link = f"{PAGE}builds/b-01m8rcwka81r0f99bp2gv8vy44"
    assert notice_text.text_of(document(), PAGE) == (
        f"FAILED nightly #bp2gv8vy44 · step 2 'make test' exit 2 · {link}"
    )
    late = document(result="timeout", steps=[], message="it ran for 30m", name="")
    assert notice_text.text_of(late, "").startswith("TIMEOUT build #bp2gv8vy44 · it ran for 30m ·")
    assert notice_text.text_of(document(result="success"), PAGE) == ""
    assert notice_text.text_of(document(result="cancelled"), PAGE) == ""
    alarm = {"event": "alarm.budget", "items": [{"name": "all", "usd": 3}]}
    assert notice_text.text_of(alarm, PAGE) == f"ALARM budget all · {PAGE}"


def test_a_build_puts_no_markup_into_a_chat() -> None:
    evil = "<!channel> @here [x](http://evil) `a`\n\x1b[31m" + "x" * 10_000
    text = notice_text.text_of(document(steps=[{"run": evil, "exit_code": 1}]), PAGE)
    assert not set("<>@[]`\n\x1b") & set(text)
    assert len(text) <= notice_text.LONGEST_NOTICE + 10
    assert text.endswith("/builds/b-01m8rcwka81r0f99bp2gv8vy44")


def test_a_chat_gets_the_text(chat: Chat) -> None:
    assert people.tell(chat.url, "FAILED nightly · é") == ""
    assert [post["message"] for post in chat.taken] == ["FAILED nightly · é"]


def test_no_redirect_is_followed_though_the_url_says_so(chat: Chat) -> None:
    other = Chat()

    def away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(307)
        handler.send_header("Location", other.url.decode().replace("json:", "http:"))

    try:
        chat.answer = away
        for url in (chat.url, chat.url + b"?redirect=yes"):
            assert people.tell(url, "text")
        assert (len(chat.taken), other.taken) == (2, [])
    finally:
        other.close()


def test_a_chat_that_hangs_is_left(chat: Chat) -> None:
    hung = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        hung.wait(60)
        handler.send_response(200)

    chat.answer = hang
    assert people.tell(chat.url, "text", whole=4.0) == "no answer within 4 s"
    hung.set()


def test_a_failure_tells_no_part_of_the_url(chat: Chat) -> None:
    chat.answer = lambda handler: handler.send_response(500)
    urls = (
        chat.url, b"json://user:password-of-it@127.0.0.1:1/token-of-it",
        b"slack://TokenOfIt/not/enough", b"nothing-of-it://x", b"syslog://", b"\xff\xfe",
        b"dbus://", b"file:///etc/passwd",
    )  # fmt: skip
    for url in urls:
        error = people.tell(url, "text")
        assert error
        assert "of-it" not in error.lower()
        assert "TokenOfIt" not in error


def test_what_a_failure_says_of_the_url_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a service of Apprise's puts into its words."""
    echo = "import json, sys; print(json.dumps('no: ' + json.load(sys.stdin)['url']))"
    monkeypatch.setattr(people, "_PROGRAM", echo)
    error = people.tell(b"slack://TokenOfIt/more-of-it@host", "text")
    assert error == "no: ***"


def test_people_are_told_by_the_outbox_until_they_take_it(ledger: Ledger, chat: Chat) -> None:
    named(ledger, "team")
    for build, result in (("b-1", Result.SUCCESS), ("b-2", Result.FAILURE)):
        running(ledger, build, f"vm-{build}", steps=(Step(run="make"), Step(run="make test")))
        ledger.builds.finish(build, epoch=1, now=110.0, result=result, reason=Reason.EXIT_CODE)
    clock = [200.0]
    webhook = Webhook(name="team", url="", key=chat.url, people=True, server_url=PAGE)
    sender = OutboxSender(
        ledger, "team", notifications.delivery(ledger, webhook), clock=lambda: clock[0]
    )
    chat.answer = lambda handler: handler.send_response(503)
    sender.run()
    assert waiting(ledger, "team") == ["b-2"]
    chat.answer = lambda handler: handler.send_response(200)
    clock[0] += 60
    sender.run()
    assert waiting(ledger, "team") == []
    assert len(chat.taken) == 2
    assert chat.taken[-1]["message"].startswith("FAILED")
    assert chat.taken[-1]["message"].endswith("/builds/b-2")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"kind": "people", "secret": "SLACK_URL"}, "it has no name"),
        ({"kind": "people", "name": "t", "secret": "A", "url": "https://x.example"}, "is a secret"),
        ({"name": "t", "secret": "A"}, "it has no url"),
        ({"kind": "person", "name": "t", "secret": "A"}, "people"),
        ({"kind": "slack", "name": "t", "secret": "A"}, 'kind = "people"'),
        ({"kind": "E-Mail", "name": "t", "secret": "A"}, 'kind = "people"'),
    ],
)
def test_a_table_that_cannot_be_is_refused(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NotifySettings.model_validate(table)


def test_without_apprise_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("SLACK_URL", "slack://x")
    settings = NotifySettings.model_validate({"kind": "people", "name": "t", "secret": "SLACK_URL"})
    with pytest.raises(ConfigError, match=r"vmrunner\[notify\]"):
        notifications.open_webhook(settings)
