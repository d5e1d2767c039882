"""Webhooks as programs have them: `serve` tells them, `notify` shows and tries them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.blackbox import Cli, serving, until
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.file_cloud import FileCloud
from tests.support.otlp_collector import Collector
from tests.support.webhook_receiver import KEY, Receiver, receiving


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as found:
        values = {"name": "chat", "url": found.url, "secret": "HOOK_KEY"}
        monkeypatch.setenv("VMRUNNER_NOTIFY", json.dumps([values]))
        monkeypatch.setenv("HOOK_KEY", KEY.decode())
        yield found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    yield found
    found.close()


def test_serve_tells_what_ended_also_before_it_was_killed(
    home: Path, cli: Cli, cloud: FileCloud, receiver: Receiver, collector: Collector
) -> None:
    receiver.answers = [503]
    with serving(home, cli) as serve:
        first = cli("run", "-d", "--", "echo", "one").out.decode().strip()
        until(lambda: cli("show", first, "-o", "json").items[0]["state"] == "finished")
        serve.send_signal(signal.SIGKILL)
        serve.wait()
    with serving(home, cli):
        until(
            lambda: all(x["delivered_at"] for x in cli("notify", "ls", "-o", "json").items),
        )
    assert set(receiver.builds) == {first}
    assert len(set(receiver.ids)) == 1
    spans = collector.requests[-1].resource_spans[0].scope_spans[0].spans
    values = {attribute.key: attribute.value.string_value for attribute in spans[0].attributes}
    assert values["cicd.pipeline.run.id"] == first
    row, traces = cli("notify", "ls", "-o", "json").items
    assert (row["name"], row["waiting"], row["error"], row["given_up"]) == ("chat", 0, None, 0)
    assert (traces["name"], traces["waiting"]) == ("otel:traces", 0)
    assert b"chat" in cli("notify", "ls").out


def test_a_test_event_is_sent_now(cli: Cli, receiver: Receiver) -> None:
    done = cli("notify", "test", "chat")
    (body,) = receiver.bodies
    assert (done.code, done.out.decode().strip()) == (0, body["id"])
    assert (body["event"], body["items"]) == ("test", [])
    receiver.answers = [401]
    refused = cli("notify", "test", "chat")
    assert (refused.code, b"it answered 401" in refused.err) == (1, True)
    unknown = cli("notify", "test", "chta")
    assert (unknown.code, b"did you mean 'chat'" in unknown.err) == (3, True)


def test_a_secret_that_is_not_there_is_told(
    cli: Cli, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK_KEY")
    assert b"notify.chat.secret: HOOK_KEY is not set" in cli("notify", "test", "chat").err
    assert b"HOOK_KEY is not set" in cli("doctor").out
