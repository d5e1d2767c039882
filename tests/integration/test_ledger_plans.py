"""No statement of the ledger goes through a table that grows with every build: each that is made
again and again finds what it wants by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from vmrunner.ledger import (
    Ledger,
    actions,
    budgets,
    build_costs,
    build_writes,
    builds,
    engines,
    events,
    images,
    instance_reads,
    instance_writes,
    instances,
    logs,
    metrics,
    objects,
    outbox,
    pool_vms,
    pools,
    prices,
    removals,
    sightings,
    spending,
    submitter_leases,
    tokens,
)
from vmrunner.ledger import ledger as store
from vmrunner.ledger.statements import Prepared

MODULES = (
    budgets,
    builds,
    instance_writes,
    engines,
    events,
    images,
    instances,
    logs,
    objects,
    outbox,
    removals,
    build_writes,
    instance_reads,
    store,
    actions,
    metrics,
    pool_vms,
    pools,
    prices,
    build_costs,
    sightings,
    spending,
    submitter_leases,
    tokens,
)
#: These have a row for each engine, image, pool, token or reaper's name; or are kept short. That of
#: `pool_places` is for each host that filled the pool within a month.
SMALL = {
    "actions", "budgets", "engines", "engines_1", "heartbeats", "images", "ledger", "leases",
    "logins", "notify_endpoints", "pool_places", "pools", "prices", "sightings", "tokens",
}  # fmt: skip
#: Asked once, at a provider's first launch.
RARE = {"instance_reads._ANY"}
#: From the newest on, so many of those that are gone, which most are.
NEWEST = {"instance_reads._LISTED[(False, False, False)]"}
#: Counts over all, for metrics: of an index that has no more than they need.
COUNTS = {"metrics._ENDED", "metrics._COST", "metrics._DEATHS", "pools._COUNTS"}
#: Of what lasts for a day only. Whether a source is unused is no column of its row, but whether a
#: build waits for it: no index holds that, and a stored sum would be written by each build that
#: begins and ends. So all stored sources are gone through, at each upload, each with one search for
#: its builds. `gc` deletes a source a day after its last build, so the index holds those of a day;
#: objects that are logs, artifacts and caches are not in it.
OF_A_DAY = {"objects._ALL_UNUSED_BYTES": "uq_objects_source"}
#: By ids of which the first is of a recent time.
RECENT = {"instance_reads._OFFERED_SINCE"}
SCAN = re.compile(r"^SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?$")
#: From some id on, whatever became of it: all that there is, if it is an old one.
RANGE = re.compile(r"^SEARCH (?:builds|instances) USING INDEX sqlite_autoindex_\w+ \(id>\?\)$")


def statements() -> Iterator[tuple[str, Prepared]]:
    for module in MODULES:
        short = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            many = value if isinstance(value, dict) else {"": value}
            for key, statement in many.items():
                if isinstance(statement, Prepared):
                    yield f"{short}.{name}{f'[{key}]' if key else ''}", statement


def test_no_statement_scans_what_grows(tmp_path: Path) -> None:
    """Partial indexes hold only what is open or waits: to go through these is right."""
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    found = list(ledger._database.read(lambda c: [(n, s._ready(c)) for n, s in statements()]))
    ledger.close()
    scans, seen = [], 0
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        for function, count in (("date_part", 2), ("clock_timestamp", 0)):  # PostgreSQL's own
            database.create_function(function, count, lambda *_: 0)
        for name, (text, constants, _) in found:
            values = dict.fromkeys(re.findall(r":(\w+)", text), 1) | constants
            seen += 1
            for _, _, _, step in database.execute(f"EXPLAIN QUERY PLAN {text}", values):
                scan = SCAN.match(step)
                if RANGE.match(step) and name not in RECENT:
                    scans.append((name, step))
                counted = name in COUNTS and "INDEX" in step
                if scan is None or scan[1] in SMALL or name in RARE | NEWEST or counted:
                    continue
                open_only = (scan[2] or "").endswith(("_open", "_queued"))
                open_only |= name in OF_A_DAY and OF_A_DAY[name] == scan[2]
                newest = "LIMIT" in text and "INDEX" in step and "WHERE" not in text
                if not (open_only or newest):
                    scans.append((name, step))
    assert scans == []
    assert seen > 80
