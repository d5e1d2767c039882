"""Webhooks: what ends or alarms is told at least once, signed, whatever crashes or does not answer,
on both databases."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.ledger_builds import finished, running
from tests.support.stand_ins import until
from tests.support.webhook_receiver import KEY, Receiver, named, sender, waiting
from tests.support.webhook_receiver import receiver as receiver  # the fixture
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, outbox
from vmrunner.model import BuildState, NotifyEndpoint, NotifyEvent, Reason, Result
from vmrunner.runtime import daemon
from vmrunner.services import notifications
from vmrunner.services.client import webhooks

HOUR = 3600.0


# --- what is written down ------------------------------------------------------------------------


def test_a_builds_end_and_its_event_are_one_write(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(ledger)
    running(ledger)

    def end() -> None:
        ledger.builds.finish(
            "b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0
        )

    def broken(*_: object, **__: object) -> None:
        raise LedgerError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "put", broken)
        with pytest.raises(LedgerError):
            end()
    assert ledger.builds.get("b-1").state is BuildState.RUNNING
    end()
    end()  # a build that ended is returned as it is
    assert waiting(ledger) == ["b-1"]


def test_a_build_that_is_held_is_told_once(ledger: Ledger) -> None:
    named(ledger)
    running(ledger)
    verdict = {"epoch": 1, "result": Result.FAILURE, "reason": Reason.EXIT_CODE}
    ledger.builds.advance("b-1", epoch=1, to=BuildState.COLLECTING, now=105.0)
    ledger.builds.hold("b-1", **verdict, now=106.0, hold_until=150.0)
    assert waiting(ledger) == ["b-1"]
    ledger.builds.finish("b-1", **verdict, now=110.0)
    assert waiting(ledger) == ["b-1"]


def test_only_who_wants_an_event_gets_it(ledger: Ledger) -> None:
    named(ledger, "all")
    named(ledger, "core", events=frozenset({NotifyEvent.BUILD_ENDED}), match={"team": "core"})
    named(ledger, "alarms", events=frozenset({NotifyEvent.SURVIVOR}))
    running(ledger, "b-core", "vm-2", labels={"team": "core", "x": "y"})
    finished(ledger, "b-other")
    for build in ("b-core", "b-other"):
        ledger.builds.finish(
            build, epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=111.0
        )
    ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-9", time.time(), data="{}")
    assert sorted(waiting(ledger, "all")) == ["b-core", "b-other", "vm-9"]
    assert waiting(ledger, "core") == ["b-core"]
    assert waiting(ledger, "alarms") == ["vm-9"]


def test_a_worn_label_is_told_to_nobody(ledger: Ledger) -> None:
    """What a tenant says under a name that tokens force is no word of who is worn."""
    ledger.tokens.create("t", frozenset(), by="test", now=0.0, labels={"team": "core"})
    ended = frozenset({NotifyEvent.BUILD_ENDED})
    for name, match in (("core", {"team": "core"}), ("night", {"night": "1"}), ("all", {})):
        named(ledger, name, events=ended, match=match)
    tenants = {"b-1": '{"repository": "r"}', "b-2": '{"team": "core"}', "b-3": "local"}
    for build, tenant in tenants.items():
        labels = {"team": "core", "night": "1"}
        running(ledger, build, f"vm-{build}", tenant=tenant, labels=labels)
        ledger.builds.finish(
            build, epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=111.0
        )
    heard = {name: set(waiting(ledger, name)) for name in ("core", "night", "all")}
    assert heard == {"core": {"b-2", "b-3"}, "night": set(tenants), "all": set(tenants)}


def test_nobody_named_means_nothing_is_written(ledger: Ledger) -> None:
    finished(ledger, "b-1")
    ledger.outbox.declare(
        [NotifyEndpoint(name="former", events=frozenset(NotifyEvent))],
        time.time() - 2 * outbox.FORGOTTEN,
    )
    ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-9", time.time())
    assert waiting(ledger, "former") == []


def test_a_name_that_another_node_wrote_keeps_no_other_out(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(ledger, "chat")
    both = [NotifyEndpoint(name=name, events=frozenset(NotifyEvent)) for name in ("chat", "new")]
    with monkeypatch.context() as patch:  # it was not there yet when we looked
        patch.setattr(outbox, "_NAME", lambda *_, **__: SimpleNamespace(rowcount=0))
        ledger.outbox.declare(both, time.time())
    ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-9", time.time())
    assert waiting(ledger, "new") == ["vm-9"]


# --- sending -------------------------------------------------------------------------------------


def test_an_event_is_sent_signed_and_once(ledger: Ledger, receiver: Receiver) -> None:
    named(ledger)
    finished(ledger, "b-1")
    send = sender(ledger, receiver.url)
    send.run()
    send.run()
    (body,), (headers,) = receiver.bodies, receiver.headers
    assert headers["Vmrunner-Event-Id"] == body["id"]
    assert headers["Vmrunner-Event"] == body["event"] == "build.ended"
    assert (body["kind"], body["schema_version"]) == ("build", 1)
    assert body["installation"] == ledger.installation
    (build,) = body["items"]
    assert (build["id"], build["result"], build["steps"][0]["run"]) == (
        "b-1", "success", "make test",
    )  # fmt: skip
    (status,) = ledger.outbox.status()
    assert (status.waiting, status.error, status.failures) == (0, "", 0)
    assert status.delivered_at is not None


def test_a_crash_between_send_and_mark_sends_it_again(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(ledger)
    finished(ledger, "b-1")
    dying = sender(ledger, receiver.url)
    with monkeypatch.context() as patch:

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(ledger.outbox, "sent", dies)
        patch.setattr(ledger.engines, "release", lambda *_: None)  # it is dead
        with pytest.raises(KeyboardInterrupt):
            dying.run()
    now = [0.0]
    heir = sender(ledger, receiver.url, monotonic=lambda: now[0])
    while now[0] < notifications.SENDER_LEASE:
        heir.run()
        assert len(receiver.bodies) == 1  # until the lease of the dead one is over
        now[0] += daemon.NOTIFY
    heir.run()
    assert receiver.ids == [receiver.ids[0]] * 2
    assert receiver.bodies[0] == receiver.bodies[1]
    assert waiting(ledger) == []


def test_while_one_node_sends_another_does_not(ledger: Ledger, receiver: Receiver) -> None:
    named(ledger)
    finished(ledger, "b-1")
    other = sender(ledger, receiver.url)

    def meanwhile(*_: object, **__: object) -> str:
        other.run()
        return ""

    sender(ledger, receiver.url, post=meanwhile).run()
    assert receiver.bodies == []
    assert waiting(ledger) == []


@pytest.mark.parametrize("answer", [307, 302, 500, 400, 410])
def test_whatever_is_no_2xx_is_tried_again(tmp_path: Path, receiver: Receiver, answer: int) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    named(ledger)
    finished(ledger, "b-1")
    receiver.answers = [answer]
    sender(ledger, receiver.url).run()
    assert str(answer) in ledger.outbox.status()[0].error
    sender(ledger, receiver.url).run()
    assert len(receiver.bodies) == 1  # not yet, and nobody followed the redirect
    sender(ledger, receiver.url, clock=lambda: time.time() + 60).run()
    assert receiver.ids == [receiver.ids[0]] * 2
    assert waiting(ledger) == []
    ledger.close()


def test_an_event_that_is_refused_holds_no_other_back(ledger: Ledger, receiver: Receiver) -> None:
    named(ledger)
    for n in range(4):
        finished(ledger, f"b-{n}")
    receiver.answers = [422]
    sender(ledger, receiver.url).run()
    assert receiver.builds == ["b-0", "b-1", "b-2", "b-3"]
    assert waiting(ledger) == ["b-0"]


def test_many_that_are_refused_hold_no_other_back(ledger: Ledger) -> None:
    named(ledger)
    refused = {finished(ledger, f"b-{n}") for n in range(notifications.FAILURES + 1)}
    finished(ledger, "b-last")
    now, taken = [time.time()], set()

    def post(*_: object, body: bytes, **__: object) -> str:
        build = json.loads(body)["items"][0]["id"]
        taken.update({build} - refused)
        return "no" if build in refused else ""

    send = sender(ledger, "http://127.0.0.1:1/", post=post, clock=lambda: now[0])
    for _ in range(10):
        send.run()
        now[0] += daemon.NOTIFY
    assert taken == {"b-last"}


def test_one_that_is_down_is_left_alone_for_ever_longer(ledger: Ledger) -> None:
    named(ledger)
    for n in range(10):
        finished(ledger, f"b-{n}")
    now, tries = [time.time()], 0

    def post(*_: object, **__: object) -> str:
        nonlocal tries
        tries += 1
        return "no"

    send = sender(ledger, "http://127.0.0.1:1/", post=post, clock=lambda: now[0])
    for _ in range(360):  # half an hour
        send.run()
        now[0] += daemon.NOTIFY
    assert 3 < tries < 60
    (status,) = ledger.outbox.status()
    assert (status.waiting, status.error) == (10, "no")


def test_a_clock_that_was_wrong_keeps_nothing_back_for_ever(
    ledger: Ledger, receiver: Receiver
) -> None:
    named(ledger)
    finished(ledger, "b-1")
    wrong = sender(ledger, "", post=lambda *_, **__: "no", clock=lambda: time.time() + 9 * HOUR)
    wrong.run()
    sender(ledger, receiver.url).run()
    assert receiver.builds == ["b-1"]


def test_a_receiver_that_drips_is_given_up_in_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WHOLE", 0.5)
    over = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):  # nobody waits any more
            for _ in range(100):  # 5 s, and then all is well
                if over.wait(0.05):
                    return
                handler.wfile.write(b"X: y\r\n")
            handler.wfile.write(b"Content-Length: 0\r\n\r\n")

    receiver.answers = [drip]
    try:
        outcome = webhooks.post(
            receiver.url, KEY, event="test", name="ev-1", body=b"{}", now=time.time()
        )
    finally:
        over.set()
    assert outcome.startswith("no answer within")


def test_a_receiver_writes_no_long_error(receiver: Receiver) -> None:
    receiver.answers = [lambda handler: handler.wfile.write(b"x" * 50_000 + b"\r\n\r\n")]
    outcome = webhooks.post(
        receiver.url, KEY, event="test", name="ev-1", body=b"{}", now=time.time()
    )
    assert outcome.startswith("RemoteProtocolError")
    assert len(outcome) <= 300


def test_one_that_hangs_delays_no_other(tmp_path: Path, receiver: Receiver) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    over = threading.Event()
    named(ledger)
    named(ledger, "hangs")
    finished(ledger, "b-1")

    def hang(*_: object, **__: object) -> str:
        over.wait(30)
        return "it hung"

    poison = sender(ledger, "", "hangs", post=hang)
    tasks = daemon._tasks({"hangs": poison.run, "chat": sender(ledger, receiver.url).run})
    try:
        for task in tasks:
            task()
        until(lambda: receiver.builds == ["b-1"])
    finally:
        over.set()
    until(lambda: ledger.outbox.status()[1].error == "it hung")
    ledger.close()


def test_two_nodes_that_die_and_a_bad_receiver_lose_nothing(
    ledger: Ledger, url: str, data_dir: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver refuses some, nodes die before a mark; all the while builds end."""
    named(ledger)
    dice = random.Random(7)
    receiver.answers = [dice.choice((200, 200, 500, 302)) for _ in range(60)]
    monkeypatch.setattr(notifications, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(notifications, "LONGEST_PAUSE", 0.05)
    ended = threading.Event()

    def node(seed: int) -> None:
        mine = Ledger.open(url, data_dir=data_dir)
        dice, sent = random.Random(seed), mine.outbox.sent

        def marks(*args: Any) -> None:
            if dice.random() < 0.3:
                raise OSError("it is dead")
            sent(*args)

        mine.outbox.sent = marks  # type: ignore[method-assign]
        while not (ended.is_set() and not waiting(mine)):
            with contextlib.suppress(OSError):  # it died, and another takes its place
                sender(mine, receiver.url).run()
        mine.close()

    nodes = [threading.Thread(target=node, args=(seed,)) for seed in (1, 2)]
    for process in nodes:
        process.start()
    names = [finished(ledger, f"b-{n}") for n in range(15)]
    ended.set()
    for process in nodes:
        process.join(60)
        assert not process.is_alive()
    assert sorted(set(receiver.builds)) == sorted(names)
    assert len(set(zip(receiver.ids, receiver.builds, strict=True))) == len(names)
