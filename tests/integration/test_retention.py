"""What outlives its build, and what a crash left in the spool."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import running, submitted
from vmrunner.cli import exit_codes
from vmrunner.core.reap_plan import Sighting, SightingKind
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger
from vmrunner.model import NotifyEndpoint, NotifyEvent, Reason, Result
from vmrunner.reaper.once import swept_in
from vmrunner.reaper.retention import ACTIONS, DAY, UNSWEPT, Removal, retain
from vmrunner.services import alarms
from vmrunner.services.documents import removal_document
from vmrunner.store import open_store
from vmrunner.store.object_gc import ObjectGc

NOW = 1_000_000_000.0
KEEP = 30 * DAY
ROWS = 90 * DAY


def made(path: Path, age: float) -> Path:
    if path.suffix in (".tar", ".part"):
        path.write_bytes(b"x")
    else:
        (path / "dist").mkdir(parents=True)
        (path / "dist" / "link").symlink_to("/etc")
    os.utime(path, (NOW - age, NOW - age))
    return path


def garbage(ledger: Ledger, root: Path) -> ObjectGc:
    store = open_store(f"file://{root}/store")
    return ObjectGc(ledger, lambda: store, keep=KEEP, shared=True, clock=lambda: NOW)


def finished(ledger: Ledger, build: str, age: float, **changes: object) -> None:
    running(ledger, build, f"vm-{build}", **changes)
    ledger.logs.append(build, 1, 1, offset=2, data=b"x\n", now=105.0)
    result, reason = Result.SUCCESS, Reason.EXIT_CODE
    ledger.builds.finish(build, epoch=1, result=result, reason=reason, now=NOW - age)


def retained(ledger: Ledger, root: Path, *, now: float = NOW) -> dict[str, Removal]:
    """Go through one night."""
    removals = retain(
        ledger, garbage(ledger, root), sources=root, artifacts=root / "none", keep=KEEP,
        keep_caches=KEEP, keep_rows=ROWS, now=now,
    )  # fmt: skip
    return {removal.what: removal for removal in removals}


def set_raw(ledger: Ledger, statement: str) -> None:
    ledger._database.write(lambda c: c.exec_driver_sql(statement))


def test_what_nobody_needs_any_more_is_removed_and_nothing_else(
    ledger: Ledger, tmp_path: Path
) -> None:
    sources, artifacts = tmp_path / "s", tmp_path / "a"
    sources.mkdir()
    artifacts.mkdir()
    finished(ledger, "b-old", KEEP + 10)
    finished(ledger, "b-new", KEEP - 10)
    finished(ledger, "b-brief", KEEP - 10, keep_logs=DAY)
    submitted(ledger, "b-queued")
    kept = [
        made(sources / "b-queued.tar", 99 * DAY),
        made(sources / "b-being-packed.tar", 10),
        made(sources / "b-being-packed.tar.part", 10),
        made(sources / "anothers.tar", 99 * DAY),
        made(sources / f"{'a' * 64}.tar", 10),
        made(artifacts / "b-new.1", KEEP + 20),
        made(artifacts / "b-queued", KEEP + 20),
        made(artifacts / "b-earlier-ledgers-new", KEEP - 10),
        made(artifacts / "mine", 99 * DAY),
    ]
    gone = [
        made(sources / "b-new.tar", DAY + 10),
        made(sources / "b-unknown.tar", DAY + 10),
        made(sources / "b-queued.tar.part", DAY + 10),
        made(sources / f"{'b' * 64}.tar", DAY + 10),
        made(sources / f"{'b' * 64}.1234.part", DAY + 10),
        made(sources / "upload-1234.part", DAY + 10),
        made(sources / "b-new.1.0.cache", DAY + 10),
        made(artifacts / "b-old.1", KEEP + 20),
        made(artifacts / "b-brief.1", KEEP + 20),
        made(artifacts / "b-earlier-ledgers", KEEP + 20),
    ]
    once = partial(
        retain, ledger, garbage(ledger, tmp_path), sources=sources, artifacts=artifacts, keep=KEEP,
        keep_caches=KEEP, keep_rows=ROWS, now=NOW,
    )  # fmt: skip
    would = once(dry_run=True)
    assert [path for path in gone if not path.exists()] == []
    assert ledger.logs.read("b-old")
    assert once() == would
    assert [(removal.what, removal.count) for removal in would] == [
        ("logs", 2),
        ("caches", 0),
        ("sources", 7),
        ("artifacts", 3),
        ("objects", 0),
        ("builds", 0),
    ]
    assert would[0].size == 4  # bytes
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert [bool(ledger.logs.read(build)) for build in ("b-old", "b-new")] == [False, True]
    assert Path("/etc/passwd").exists()


def test_what_is_over_for_long_is_forgotten(ledger: Ledger, tmp_path: Path) -> None:
    for name, over in (("", NOW - DAY - 1), ("", NOW), ("ci", NOW - DAY - 1)):
        ledger.tokens.create(name, frozenset(), by="oidc", now=1.0, expires_at=over)
    for age in (ACTIONS - 1, ACTIONS + 1):
        ledger.actions.add("token:1", "drain", "", NOW - age)
    directories = {"sources": tmp_path, "artifacts": tmp_path}
    keeps = {"keep": KEEP, "keep_caches": KEEP, "keep_rows": ROWS}
    for dry_run, counts in ((True, (3, 2)), (False, (2, 1))):
        retain(ledger, garbage(ledger, tmp_path), **directories, **keeps, now=NOW, dry_run=dry_run)
        assert (len(ledger.tokens.list()), len(ledger.actions.latest())) == counts


def test_sightings_of_places_that_nobody_sweeps_go(ledger: Ledger, tmp_path: Path) -> None:
    for place, age in (("f|gone|s", UNSWEPT + 1), ("f|here|s", UNSWEPT - 1)):
        seen = Sighting(
            what=SightingKind.LATCH, subject=place, place=place, sweep="s-1", begun=NOW - 99 * DAY
        )
        ledger.sightings.record("local", [place], [seen])
        ledger.engines.record_heartbeat(swept_in(place), "e-1", NOW - age)
    retained(ledger, tmp_path)
    assert [latch.place for latch in ledger.sightings.latched()] == ["f|here|s"]


def test_what_cannot_be_removed_does_not_keep_the_rest(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def stubborn(path: Path, **options: bool) -> None:
        if path.name == "b-1.tar":
            raise PermissionError(13, "Permission denied")
        unlink(path, **options)

    paths = [made(tmp_path / f"b-{n}.tar", 9 * DAY) for n in range(4)]
    monkeypatch.setattr(Path, "unlink", stubborn)
    retain(
        ledger, garbage(ledger, tmp_path), sources=tmp_path, artifacts=tmp_path / "none", keep=KEEP,
        keep_caches=KEEP, keep_rows=ROWS, now=NOW,
    )  # fmt: skip
    assert [path.exists() for path in paths] == [False, True, False, False]


def test_a_build_that_cannot_be_read_keeps_no_other(ledger: Ledger, tmp_path: Path) -> None:
    for n in range(4):
        finished(ledger, f"b-{n}", KEEP + 100 - n)
    set_raw(ledger, "UPDATE builds SET reason = 'a_reason_of_tomorrow' WHERE id = 'b-1'")
    for night, expected in enumerate(((3, 1), (0, 1))):
        done = retained(ledger, tmp_path, now=NOW + night)["logs"]
        assert (done.count, done.failed) == expected
    assert [bool(ledger.logs.read(f"b-{n}")) for n in range(4)] == [False, True, False, False]


def test_a_step_that_fails_keeps_no_other(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LedgerError("the disk is full")

    for owner, name in ((ledger.removals, "remove_old"), (ledger.tokens, "forget")):
        monkeypatch.setattr(owner, name, broken)
    made(tmp_path / "b-1.tar", 9 * DAY)
    done = retained(ledger, tmp_path)
    assert {what: removal.failed for what, removal in done.items() if removal.failed} == {
        "logs": 1, "tokens": 1,
    }  # fmt: skip
    assert done["sources"].count == 1
    assert not (tmp_path / "b-1.tar").exists()


def test_a_night_that_left_something_alarms_once_a_day(ledger: Ledger) -> None:
    operator = NotifyEndpoint(name="ops", events=frozenset({NotifyEvent.RETENTION_FAILING}))
    ledger.outbox.declare([operator], NOW)
    night = [Removal("logs", 5, 10), Removal("rows", 1, 0, failed=2)]
    for passed in (0.0, 3600.0, DAY):
        alarms.write_left(ledger, night, NOW + passed)
        alarms.write_left(ledger, night[:1], NOW + passed)
    notices = [json.loads(n.data) for n in ledger.outbox.waiting("ops", NOW + 2 * DAY, 9)]
    assert [body["items"] for body in notices] == [[removal_document(night[1])]] * 2


def test_it_is_removed_without_a_serve_that_lives_over_night(home: Path, cli: Cli) -> None:
    data = home / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    finished(ledger, "b-old", KEEP + 10)
    made(data / "artifacts" / "b-old", NOW)
    for path in (data / "artifacts" / "b-old", data / "artifacts" / "b-old" / "dist"):
        os.utime(path, (1.0, 1.0))
    for _ in range(2):
        done = cli("gc", "--dry-run", "-o", "json")
        assert {item["what"]: item["count"] for item in done.items} == {
            "logs": 1, "caches": 0, "sources": 0, "artifacts": 1, "objects": 0, "builds": 0,
            "images": 0,
        }  # fmt: skip
        assert b"dry run" in done.err
    ledger.engines.record_heartbeat("clock", "e-1", time.time() - 21 * DAY)
    refused = cli("gc")
    assert refused.code == exit_codes.CONFLICT
    assert b"past the last time" in refused.err
    assert ledger.logs.read("b-old") != []
    assert cli("gc", "--trust-clock").out.splitlines()[1].split()[:2] == [b"logs", b"1"]
    assert ledger.logs.read("b-old") == []
    assert list((data / "artifacts").iterdir()) == []
    assert {item["count"] for item in cli("gc", "-o", "json").items} == {0}
    ledger.close()
