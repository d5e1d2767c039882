"""Many at once: processes and threads on one ledger."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.ledger_builds import launch, raced, ref, running, spec, started, submitted
from vmrunner.core.scheduling import Capacity
from vmrunner.errors import Fenced
from vmrunner.ledger import Ledger
from vmrunner.model import BuildState, Death, Reason, Result

BUILDS, PROCESSES = 400, 4

CLAIMER = """
import json, pathlib, sys
from tests.support.ledger_builds import launch, ref
from vmrunner.ledger import Ledger

url, data_dir, me, batch = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
ledger = Ledger.open(url, data_dir=data_dir)
queued = ledger.builds.queued(batch)
print("ready", flush=True)
sys.stdin.readline()
mine, n = [], 0
while queued:
    wishes = []
    for build in queued:
        n += 1
        wishes.append(launch(ledger, build.id, f"vm-{me}-{n:05}", owner=me))
    won = ledger.instances.start(wishes, until=1e9)
    ledger.instances.record([(i.id, i.epoch, ref("i-" + i.id)) for _, i in won], 101.0)
    mine += [build.id for build, _ in won]
    queued = ledger.builds.queued(batch)
print(json.dumps([mine, n]))
"""


@pytest.mark.parametrize("batch", [1, 16])
def test_no_build_is_claimed_twice(ledger: Ledger, url: str, data_dir: Path, batch: int) -> None:
    """Promise 3, no double: four processes that see the same queue."""
    for n in range(BUILDS):
        submitted(ledger, f"b-{n:03}")
    outcomes = raced([CLAIMER, url, str(data_dir), f"e-{n}", str(batch)] for n in range(PROCESSES))
    counts = Counter(build for some, _ in outcomes for build in some)
    assert set(counts.values()) == {1}
    assert len(counts) == BUILDS
    # They did compete: all of them had seen the same first builds, and only one could win each.
    assert sum(wanted for _, wanted in outcomes) - BUILDS >= (PROCESSES - 1) * batch
    instances = ledger.instances.list()
    assert Counter(i.build for i in instances) == counts
    assert all(b.attempt == b.epoch == 1 for b in ledger.builds.list())
    assert all(b.state is BuildState.BOOTING for b in ledger.builds.list())


def test_who_claims_at_once_keeps_one_limit(ledger: Ledger) -> None:
    """Each sees the others' claims: no more VMs than there is room for, over all and each."""
    for n in range(32):
        submitted(ledger, f"b-{n:02}")

    def claim(n: int) -> int:
        wishes = [launch(ledger, f"b-{i:02}", f"vm-{n}-{i:02}") for i in range(n, 32, 4)]
        return len(ledger.instances.start(wishes, until=1.0, rooms=Capacity(overall=10)))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(claim, range(4))) == 10
    assert len(ledger.instances.open()) == 10
    last = [launch(ledger, f"b-{n:02}", f"vm-9-{n:02}") for n in reversed(range(32))]
    rooms = Capacity(overall=99, each={"local": 12})
    won = ledger.instances.start(last, until=1.0, rooms=rooms)
    assert len(won) <= 2  # of the first that found room, some had been claimed
    assert not ledger.instances.start(last, until=1.0, rooms=Capacity(overall=10))


def test_many_threads_write_at_once(ledger: Ledger) -> None:
    """Sessions of one process: no write is lost, no log is mixed up, nothing waits for ever."""
    names = [f"{n:02}" for n in range(24)]

    def life(name: str) -> None:
        build, vm = f"b-{name}", f"vm-{name}"
        running(ledger, build, vm)
        for n in range(10):
            data = f"{name} {n}\n".encode()
            ledger.logs.append(build, 1, 1, offset=n + 1, data=data, now=105.0)
            ledger.builds.get(build)
        ledger.builds.advance(build, epoch=1, to=BuildState.COLLECTING, now=106.0)
        ledger.builds.finish(
            build, epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=107.0
        )
        ledger.instances.mark_deleting(vm, seen_epoch=1, death=Death.DONE, now=107.0)
        assert ledger.instances.close(vm, epoch=2, death=Death.DONE, now=108.0)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(life, names))
    assert all(build.finished for build in ledger.builds.list())
    assert ledger.instances.open() == []
    for name in names:
        log = b"".join(chunk.data for chunk in ledger.logs.read(f"b-{name}"))
        assert log == b"".join(f"{name} {n}\n".encode() for n in range(10))
        events = ledger.events.list(f"b-{name}")
        assert [e.seq for e in events] == list(range(1, len(events) + 1))


def test_of_many_that_take_over_one_wins(ledger: Ledger) -> None:
    running(ledger)

    def take(n: int) -> bool:
        return (
            ledger.builds.take_over("b-1", seen_epoch=1, owner=f"e-{n}", until=300.0, now=105.0)
            is not None
        )

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(16))) == 1
    assert ledger.builds.get("b-1").epoch == 2


def test_of_many_that_take_a_lease_one_wins(ledger: Ledger) -> None:
    def take(n: int) -> bool:
        return ledger.engines.acquire("reaper", f"e-{n}", until=100.0)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(16))) == 1


def test_the_same_key_from_many_is_one_build(ledger: Ledger) -> None:
    def submit(n: int) -> tuple[str, bool]:
        build, created = ledger.builds.submit(spec(idempotency_key="k"), id=f"b-{n}", now=1.0)
        return build.id, created

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, range(16)))
    assert sum(created for _, created in answers) == 1
    assert len({name for name, _ in answers}) == 1


def test_an_owner_and_its_successor_append_no_byte_twice(ledger: Ledger) -> None:
    """Promise 6: what a stale owner wrote is either in the offset that its successor reads, or
    was never written."""
    running(ledger)

    def stale() -> int:
        end = 0
        try:
            while True:
                ledger.logs.append("b-1", 1, 1, offset=end + 1, data=b"x", now=105.0)
                end += 1
        except Fenced:
            return end

    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(stale)
        while ledger.logs.offset("b-1", 1) < 5:
            assert not writer.done()
        build = ledger.builds.take_over("b-1", seen_epoch=1, owner="e-2", until=300.0, now=105.0)
        assert build is not None
        offset = ledger.logs.offset("b-1", 1)
        assert writer.result(timeout=60) == offset == ledger.logs.size("b-1")


def test_batches_and_dooms_that_cross_do_not_deadlock(ledger: Ledger) -> None:
    """They take their locks in one order, or are run again; none is lost."""
    names = [f"{n:02}" for n in range(20)]
    for name in names:
        started(ledger, f"b-{name}", f"vm-{name}")

    def record(_: int) -> set[str]:
        return ledger.instances.record([(f"vm-{n}", 1, ref(n)) for n in reversed(names)], 102.0)

    def doom(name: str) -> bool:
        dying = ledger.instances.mark_deleting(
            f"vm-{name}", seen_epoch=1, death=Death.CANCELLED, now=102.0
        )
        return dying is not None

    with ThreadPoolExecutor(8) as threads:
        marked = threads.map(doom, reversed(names))
        records = list(threads.map(record, range(4)))
        assert all(marked)
    assert sum(map(len, records)) == len(set().union(*records))
    new = launch(ledger, "b-new", "vm-new")
    submitted(ledger, "b-new")
    assert len(ledger.instances.start([new], until=1.0)) == 1
