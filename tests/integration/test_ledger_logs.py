"""Logs, events, engines, leases and what the reaper remembers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ledger_builds import PROCESS, running, started, submitted
from tests.support.postgres import Server
from tests.support.sshd import wait_for
from vmrunner.core.reap_plan import Sighting, SightingKind
from vmrunner.engine.membership import beats
from vmrunner.errors import Fenced, NotFound
from vmrunner.ledger import Ledger, Member
from vmrunner.ledger.logs import cut
from vmrunner.ledger.upgrade import known
from vmrunner.model import STARTING, Chunk, EventKind, Process, Reason, Result
from vmrunner.services import audit


def put(ledger: Ledger, *pieces: bytes, attempt: int = 1) -> None:
    end = ledger.logs.offset("b-1", attempt)
    for piece in pieces:
        end += len(piece)
        ledger.logs.append("b-1", attempt, 1, offset=end, data=piece, now=105.0)


def text(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


def test_a_log_comes_back_whole_and_in_order(ledger: Ledger) -> None:
    running(ledger)
    put(ledger, b"one\ntw", b"", b"o\nthree\n\xff\x00", b"four")
    chunks = ledger.logs.read("b-1")
    assert text(chunks) == b"one\ntwo\nthree\n\xff\x00four"
    assert [c.seq for c in chunks] == [1, 2, 3, 4]
    assert [c.line for c in chunks] == [0, 1, 1, 3]
    assert ledger.logs.offset("b-1", 1) == chunks[-1].offset == 20
    assert ledger.logs.offset("b-1", 2) == 0
    assert ledger.logs.size("b-1") == ledger.logs.size("b-1", before=2) == 20
    assert ledger.logs.size("b-1", before=1) == 0
    assert ledger.logs.read("b-1", after_seq=2, limit=1) == chunks[2:3]


def test_after_a_line_comes_exactly_what_follows_it(ledger: Ledger) -> None:
    running(ledger)
    put(ledger, b"1\n2", b"2", b"2\n3\n", b"4", b"4\n5")
    after = lambda n: text(ledger.logs.read("b-1", after_line=n))  # noqa: E731
    assert [after(n) for n in range(7)] == [
        b"1\n222\n3\n44\n5", b"222\n3\n44\n5", b"3\n44\n5", b"44\n5", b"5", b"", b"",
    ]  # fmt: skip
    assert ledger.logs.read("b-1", after_line=2)[0].line == 2


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\x00", b"\n")), max_size=8),
    line=st.integers(0, 12),
)
def test_a_cut_agrees_with_split(pieces: list[bytes], line: int) -> None:
    chunks, lines = [], 0
    for n, piece in enumerate(pieces, start=1):
        chunks.append(Chunk(seq=n, attempt=1, time=0.0, offset=0, line=lines, data=piece))
        lines += piece.count(b"\n")
    start = max((c.seq for c in chunks if c.line < line), default=1) - 1
    whole = b"".join(pieces)
    expected = whole.split(b"\n", line)[line] if whole.count(b"\n") >= line else b""
    assert text(cut(chunks[start:], line)) == expected


def test_only_the_owner_writes_the_log(ledger: Ledger) -> None:
    running(ledger)
    with pytest.raises(Fenced):
        ledger.logs.append("b-1", 1, 0, offset=1, data=b"x", now=105.0)
    with pytest.raises(NotFound):
        ledger.logs.append("b-9", 1, 0, offset=1, data=b"x", now=105.0)
    assert ledger.logs.read("b-1") == []


def test_old_logs_can_be_deleted(ledger: Ledger) -> None:
    running(ledger)
    put(ledger, b"one\n")
    assert ledger.removals.remove_old(1e9, 0.0).count == 0
    ledger.builds.finish("b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0)
    assert ledger.removals.remove_old(1110.0, 1000.0).count == 0
    assert ledger.removals.count_old(1110.1, 1000.0) == (1, 4)
    assert ledger.removals.remove_old(1110.1, 1000.0).count == 1
    assert ledger.logs.read("b-1") == []
    assert ledger.logs.size("b-1") == 4
    assert ledger.builds.get("b-1").removed_at == 1110.1


def test_what_may_stand_already_is_written_once(ledger: Ledger) -> None:
    running(ledger)
    for _ in range(2):
        ledger.logs.append("b-1", 1, 1, offset=4, data=b"one\n", now=105.0, again=True)
        ledger.events.repeat("b-1", EventKind.SOURCE, 105.0, sent=1)
    ledger.events.repeat("b-1", EventKind.SOURCE, 106.0, sent=1)
    ledger.events.repeat("b-1", EventKind.SOURCE, 105.0, sent=2)
    assert text(ledger.logs.read("b-1")) == b"one\n"
    assert ledger.logs.size("b-1") == 4, "nor is it counted twice"
    put(ledger, b"two\n")
    assert [(chunk.seq, chunk.line) for chunk in ledger.logs.read("b-1")] == [(1, 0), (2, 1)]
    events = ledger.events.list("b-1")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    sends = [(e.time, e.data["sent"]) for e in events if e.kind == EventKind.SOURCE]
    assert sends == [(105.0, 1), (106.0, 1), (105.0, 2)]


def test_a_commit_that_comes_late_stores_no_line_twice(postgres: Server, tmp_path: Path) -> None:
    """Its connection was lost while it waited for a standby: who looks then does not see it yet."""
    url = postgres.new()
    ledger = Ledger.open(url, data_dir=tmp_path)
    running(ledger)
    with psycopg.connect(url) as late, psycopg.connect(url, autocommit=True) as looker:
        late.execute("UPDATE builds SET chunks = 1, log_lines = 1, log_bytes = 4")
        late.execute("INSERT INTO chunks VALUES ('b-1', 1, 1, 105, 4, 0, 'one\n')")

        def waits() -> bool:
            found = looker.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            return found is not None and found[0] > 0

        with ThreadPoolExecutor(1) as threads:
            options = {"offset": 4, "data": b"one\n", "now": 105.0, "again": True}
            again = threads.submit(ledger.logs.append, "b-1", 1, 1, **options)
            wait_for(waits)
            late.commit()
            again.result()
    assert text(ledger.logs.read("b-1")) == b"one\n"
    ledger.close()


def test_events(ledger: Ledger) -> None:
    submitted(ledger)
    ledger.events.add("b-1", "note", 11.0, text="ü", n=1, x=1.5, yes=True, none=None)
    (event,) = ledger.events.list("b-1")
    assert (event.seq, event.time, event.kind) == (1, 11.0, "note")
    assert event.data == {"text": "ü", "n": 1, "x": 1.5, "yes": True, "none": None}
    with pytest.raises(NotFound):
        ledger.events.add("b-9", "note", 11.0)


def test_engines_come_and_go(ledger: Ledger) -> None:
    ledger.engines.join("e-1", PROCESS, "serve", 1.0)
    ledger.engines.join("e-2", PROCESS, "run", 2.0)
    assert ledger.engines.beat("e-1", 5.0) is True
    assert replace(ledger.engines.list()[0], ahead=0.0) == Member(
        id="e-1", process=PROCESS, kind="serve", joined_at=1.0, seen_at=5.0, version=known()[-1]
    )
    ledger.engines.leave("e-1")
    assert ledger.engines.beat("e-1", 6.0) is False
    assert [m.id for m in ledger.engines.list()] == ["e-2"]


def test_an_engine_says_where_it_drives_builds(ledger: Ledger) -> None:
    ledger.engines.join("e-1", PROCESS, "serve", 1.0, ["local", "aws"])
    (member,) = ledger.engines.list()
    assert member.providers == {"local", "aws"}
    assert ledger.engines.beat("e-1", 2.0)
    assert ledger.engines.list()[0].providers == {"local", "aws"}
    assert ledger.engines.beat("e-1", 3.0, ["local"])
    ledger.engines.join("e-1", PROCESS, "serve", 4.0, ["aws"])  # its first answer was lost
    assert [(m.providers, m.seen_at) for m in ledger.engines.list()] == [({"local"}, 3.0)]


def test_who_leaves_takes_its_announcement_along(ledger: Ledger) -> None:
    other = replace(PROCESS, pid=8)
    ledger.engines.join("e-1", PROCESS, STARTING, 1.0)
    ledger.engines.join("e-2", PROCESS, "background", 2.0)
    ledger.engines.join("e-3", other, STARTING, 3.0)
    ledger.engines.join("e-4", PROCESS, "run", 4.0)
    ledger.engines.leave("e-2")
    assert [m.id for m in ledger.engines.list()] == ["e-3", "e-4"]


def test_the_queue_of_one_provider(ledger: Ledger) -> None:
    for number in range(5):
        submitted(ledger, f"b-{number}", provider="aws" if number % 2 else "local")
    assert [b.id for b in ledger.builds.queued(2)] == ["b-0", "b-1"]
    assert [b.id for b in ledger.builds.queued(2, provider="aws")] == ["b-1", "b-3"]
    assert ledger.builds.awaited() == {"aws", "local"}
    ledger.builds.request_cancel("b-1", Reason.USER, 1.0)
    started(ledger, "b-5", "vm-5")
    assert ledger.builds.queued(provider="none") == []
    assert ledger.builds.awaited() == {"aws", "local"}


def test_a_lease_has_one_holder(ledger: Ledger) -> None:
    take, lease = ledger.engines.acquire, ledger.engines.lease
    assert lease("reaper") is None
    assert take("reaper", "e-1", until=10.0)
    assert take("reaper", "e-1", until=20.0)
    assert not take("reaper", "e-2", until=30.0)
    assert take("other", "e-2", until=30.0)
    assert ledger.engines.holders() == {"reaper": "e-1", "other": "e-2"}
    found = lease("reaper")
    assert found == ("e-1", 20.0)
    assert take("reaper", "e-1", until=25.0)
    assert not take("reaper", "e-2", until=30.0, former=found), "it was renewed since"
    assert take("reaper", "e-2", until=30.0, former=lease("reaper"))
    ledger.engines.release("reaper", "e-1")
    assert not take("reaper", "e-1", until=40.0)
    ledger.engines.release("reaper", "e-2")
    assert take("reaper", "e-1", until=40.0)


def test_heartbeats_say_when_a_thing_was_last_done(ledger: Ledger) -> None:
    assert ledger.engines.heartbeats() == {}
    ledger.engines.record_heartbeat("pass", "e-1", 5.0)
    ledger.engines.record_heartbeat("sweep", "e-1", 6.0)
    ledger.engines.record_heartbeat("pass", "e-2", 7.0)
    assert ledger.engines.heartbeats() == {"pass": 7.0, "sweep": 6.0}


def test_clocks_are_held_against_the_databases(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's is this host's, whatever that says."""
    real, postgresql = time.time, ledger.url.startswith("postgresql")
    where = Process(machine="m", boot="b", pid_namespace="n", pid=1, started=1)
    assert abs(ledger.engines.now() - real()) < 60
    for wrong in (0.0, 3600.0, -86_400.0):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: real() + wrong)
        for again in (False, True):
            if again:
                assert ledger.engines.beat("e-1", time.time())
            else:
                ledger.engines.join("e-1", where, "serve", time.time())
            (member,) = ledger.engines.list()
            assert member.ahead == pytest.approx(wrong if postgresql else 0.0, abs=2.0)
            assert beats(member, ledger.engines.now())
        ledger.engines.record_heartbeat("pass", "e-1", time.time())
        shared = ledger.engines.heartbeats({"e-1": member.ahead})["pass"]
        assert shared == pytest.approx(ledger.engines.now(), abs=2.0)
        assert bool(audit.clocks(ledger)) is (postgresql and wrong != 0.0)
        ledger.engines.leave("e-1")


def test_sightings_are_kept_for_each_place(ledger: Ledger) -> None:
    kind, memory = SightingKind, ledger.sightings
    sighting = Sighting(
        what=kind.ORPHAN, subject="f|a|s|disk|d", place="f|a|s", sweep="s-1", begun=1.5
    )
    second = Sighting(what=kind.ABSENT, subject="vm-1", place="f|b|s", sweep="s-2", begun=2.5)
    latch = Sighting(what=kind.LATCH, subject="f|b|s", place="f|b|s", sweep="s-2", begun=2.5)
    both = ("f|a|s", "f|b|s")
    memory.record("local", both, {sighting, second, latch})
    memory.record("aws", ["f|a|s"], {sighting})
    assert memory.list("local", both) == {sighting, second, latch}
    memory.record("local", ["f|a|s"], ())
    assert memory.list("local", both) == memory.list("local", ["f|b|s"]) == {second, latch}
    assert memory.list("aws", both) == {sighting}
    assert [(found.provider, found.place) for found in memory.latched()] == [("local", "f|b|s")]
    memory.forget(["f|b|s"])
    assert memory.list("local", both) == frozenset()
    assert memory.list("aws", both) == {sighting}


def test_draining_is_kept(ledger: Ledger) -> None:
    assert ledger.paused is False
    ledger.pause(True, 1.0)
    assert ledger.paused is True
    ledger.pause(False, 2.0)
    assert ledger.paused is False


def test_a_started_build_is_in_no_log_yet(ledger: Ledger) -> None:
    started(ledger)
    assert ledger.logs.read("b-1") == []
    assert ledger.logs.size("b-1") == ledger.logs.size("b-9") == 0
