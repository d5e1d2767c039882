"""The count of VMs that a start is held to: kept by what changed, and never another than the rows
say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ledger_builds import launch, ref, started, submitted, template_launch
from vmrunner.core.scheduling import Capacity
from vmrunner.ledger import LaunchRequest, Ledger, live_vms
from vmrunner.ledger.sql import Connection
from vmrunner.model import Death, Instance, InstanceState, Role

ROOM = 6


@pytest.fixture
def nodes(url: str, data_dir: Path) -> Iterator[list[Ledger]]:
    opened = [Ledger.open(url, data_dir=data_dir) for _ in range(3)]
    yield opened
    for ledger in opened:
        ledger.close()


def counted(ledger: Ledger) -> dict[str, int]:
    """As the next start of this node counts them."""
    return dict(+ledger._database.read(ledger.instances._live.count))


def truth(ledger: Ledger) -> dict[str, int]:
    rows = [row for row in ledger.instances.open() if row.role is not Role.IMAGE]
    names = {row.provider for row in rows}
    return {name: sum(row.provider == name for row in rows) for name in names}


class Churn:
    """Starts, refusals and deaths at random, by whichever node."""

    def __init__(self, nodes: list[Ledger], seed: int) -> None:
        self.nodes, self.random, self.number = nodes, random.Random(seed), 0

    def launch_request(self, ledger: Ledger) -> LaunchRequest:
        self.number += 1
        submitted(ledger, f"b-{self.number:04}")
        wanted = launch(ledger, f"b-{self.number:04}", f"vm-{self.number:04}")
        provider = self.random.choice(("local", "cloud"))
        return replace(wanted, instance=replace(wanted.instance, provider=provider))

    def step(self) -> None:
        ledger = self.random.choice(self.nodes)
        rows = ledger.instances.open()
        if not rows or self.random.random() < 0.4:
            self.start(ledger)
            return
        row = self.random.choice(rows)
        if row.state is InstanceState.DELETING:
            ledger.instances.close(row.id, epoch=row.epoch, death=Death.DONE, now=5.0)
        elif row.state is InstanceState.REQUESTED and row.build and self.random.random() < 0.4:
            wanted = self.launch_request(ledger)
            other = replace(
                wanted,
                build_id=row.build,
                seen_epoch=row.epoch,
                instance=replace(wanted.instance, build=row.build),
            )
            ledger.instances.next_offer(row.id, other, now=3.0)
        elif row.state is InstanceState.REQUESTED and self.random.random() < 0.5:
            ledger.instances.record([(row.id, row.epoch, ref(row.id))], 2.0)
        else:
            doom(ledger, row)

    def start(self, ledger: Ledger) -> None:
        if self.random.random() < 0.1:
            self.number += 1
            ledger.instances.start([template_launch(ledger, f"vm-{self.number:04}")], until=1.0)
            return
        before = truth(ledger)
        wishes = [self.launch_request(ledger) for _ in range(self.random.randint(1, 4))]
        rooms = Capacity(overall=ROOM, each={"cloud": 3})
        ledger.instances.start(wishes, until=1.0, rooms=rooms)
        won = truth(ledger)
        room = ROOM - sum(before.values())
        fitting = 0
        for wanted in wishes:
            name = wanted.instance.provider
            if fitting < room and (name != "cloud" or before.get("cloud", 0) < 3):
                before[name] = before.get(name, 0) + 1
                fitting += 1
        assert won == before


def doom(ledger: Ledger, row: Instance) -> None:
    ledger.instances.mark_deleting(row.id, seen_epoch=row.epoch, death=Death.DONE, now=4.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_node_counts_what_the_rows_say(nodes: list[Ledger], seed: int) -> None:
    churn = Churn(nodes, seed)
    for _ in range(60):
        churn.step()
        if churn.random.random() < 0.3:  # else others' changes pile up
            ledger = churn.random.choice(nodes)
            assert counted(ledger) == truth(ledger)
    assert [counted(ledger) for ledger in nodes] == [truth(nodes[0])] * 3


def test_nodes_that_start_and_end_at_once_keep_the_limit(nodes: list[Ledger]) -> None:
    def work(number: int) -> int:
        ledger, most = nodes[number], 0
        for turn in range(12):
            names = [f"{number}-{turn:02}-{n}" for n in range(3)]
            for name in names:
                submitted(ledger, f"b-{name}")
            wishes = [launch(ledger, f"b-{name}", f"vm-{name}") for name in names]
            won = ledger.instances.start(wishes, until=1.0, rooms=Capacity(overall=ROOM))
            most = max(most, len(ledger.instances.open()))
            for _, row in won:
                doom(ledger, row)
                epoch = ledger.instances.get(row.id).epoch
                ledger.instances.close(row.id, epoch=epoch, death=Death.DONE, now=5.0)
        return most

    with ThreadPoolExecutor(3) as threads:
        assert 0 < max(threads.map(work, range(3))) <= ROOM
    assert [counted(ledger) for ledger in nodes] == [{}] * 3


def test_a_start_reads_no_vm_that_goes_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    started(ledger, "b-1", "vm-1")
    assert counted(ledger) == {"local": 1}
    monkeypatch.setattr(live_vms, "_ALL", None)
    started(ledger, "b-2", "vm-2")
    assert counted(ledger) == {"local": 2}
    monkeypatch.setattr(live_vms, "WHOLE", 0.0)
    with pytest.raises(TypeError):
        counted(ledger)


def test_a_ledger_that_was_set_back_is_counted_anew(ledger: Ledger) -> None:
    for n in (1, 2):
        started(ledger, f"b-{n}", f"vm-{n}")
    assert counted(ledger) == {"local": 2}
    execute(ledger, "DELETE FROM instances WHERE id = 'vm-2'")
    execute(ledger, "UPDATE revisions SET last = last - 1")
    assert counted(ledger) == {"local": 1}


def execute(ledger: Ledger, statement: str) -> None:
    """As somebody does who writes past all that counts changes."""

    def work(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    ledger._database.write(work)
