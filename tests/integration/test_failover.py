"""A PostgreSQL that dies in the middle of everything, and a standby that takes its place."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.integration.test_daemon import Paths, Wall, ticking
from tests.support.ledger_builds import orders, running, spec, submitted
from tests.support.postgres import USER
from tests.support.postgres_pair import PostgresPair, pair
from tests.support.scripted_app import wait_until
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.errors import Conflict, LedgerError
from vmrunner.ledger import Ledger
from vmrunner.lib import process
from vmrunner.model import BuildState, Level, Limits, Reason, Result
from vmrunner.providers.fake import Cloud, FakeProvider
from vmrunner.services.doctor import failover
from vmrunner.session import End

BUILDS, AT_ONCE, LINES = 24, 6, 8
KEY = Fernet.generate_key().decode()


@pytest.fixture
def servers() -> Iterator[PostgresPair]:
    with pair() as found:
        Ledger.upgrade(found.url)
        yield found


class Guests:
    """What the VMs remember: which attempts' steps were started there, as a supervisor does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.highest: dict[str, int] = {}
        self.starts: Counter[tuple[str, int]] = Counter()

    def start(self, instance: str, build: str, attempt: int, epoch: int) -> None:
        with self.lock:
            seen_epoch = self.highest.get(instance)
            assert seen_epoch is None or epoch >= seen_epoch
            self.highest[instance] = epoch
            if seen_epoch is None:
                self.starts[build, attempt] += 1


class Session:
    """Says some lines, from where the ledger's end."""

    def __init__(self, guests: Guests, job: Any, reporter: Any) -> None:
        self.guests, self.job, self.say = guests, job, reporter

    def stop(self, reason: Reason) -> None:
        pass

    def run(self) -> End:
        say, build = self.say, self.job.build
        for state in (BuildState.CONNECTING, BuildState.PREPARING):
            say.state(state)
        say.steps_started()
        self.guests.start(self.job.instance.id, build.id, build.attempt, build.epoch)
        say.state(BuildState.RUNNING)
        for n in range(say.stored() // 7, LINES):
            say.log(7 * (n + 1), b"line %d\n" % n)
            threading.Event().wait(0.02)
        return End(
            result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, message="", lost=False
        )


@contextmanager
def node(url: str, root: Path, cloud: Cloud, guests: Guests) -> Iterator[Ledger]:
    """An engine with connections of its own."""
    ledger = Ledger.open(f"{url}&application_name={root.name}", data_dir=root, secret_key=KEY)
    engine = Engine(
        ledger,
        {"local": FakeProvider("local", cloud)},
        lambda job, reporter: Session(guests, job, reporter),
        EngineLimits(limits=Limits(max_instances=AT_ONCE)),
        process=process.current(),
        kind="serve",
        paths=Paths(root, root, root / "wake"),
        orders=orders(ledger),
    )
    with ticking(engine):
        yield ledger
    ledger.close()


def doctored(servers: PostgresPair, root: Path) -> None:
    """The standby is made synchronous; `doctor` fails before, and where commits do not wait."""

    def messages(options: str = "") -> list[str]:
        ledger = Ledger.open(f"{servers.url}{options}", data_dir=root, secret_key=KEY)
        findings = list(failover(ledger))
        ledger.close()
        assert {finding.level for finding in findings} <= {Level.ERROR}
        return [finding.message for finding in findings]

    assert "synchronous_standby_names is empty" in messages()[0]
    servers.make_synchronous()
    assert messages() == []
    for value in ("off", "local"):
        (line,) = messages(f"&options=-csynchronous_commit%3D{value}")
        assert f"synchronous_commit is {value}" in line


def test_a_failover_loses_nothing_and_does_nothing_twice(
    servers: PostgresPair, tmp_path: Path
) -> None:
    cloud, guests = Cloud(Wall()), Guests()
    doctored(servers, tmp_path / "doctor")
    with (
        node(servers.url, tmp_path / "one", cloud, guests) as first,
        node(servers.url, tmp_path / "two", cloud, guests) as second,
    ):
        was = second.generation
        builds = [f"b-{n:02}" for n in range(BUILDS)]

        def submit(ledger: Ledger, build: str) -> None:
            """As a client does that was not answered: again, under the same id."""
            try:
                ledger.builds.submit(spec(ttl=900.0, timeout=300.0), id=build, now=time.time())
            except LedgerError:
                threading.Event().wait(0.2)
                submit(ledger, build)
            except Conflict:
                pass

        def submits() -> None:
            for n, build in enumerate(builds):
                submit((first, second)[n % 2], build)

        clients = threading.Thread(target=submits)
        clients.start()
        wait_until(lambda: first.builds.counts().get("finished", 0) >= 2, seconds=60)
        servers.kill_primary()
        servers.promote()
        clients.join(60)
        wait_until(lambda: first.builds.counts() == {"finished": BUILDS}, seconds=60)
        wait_until(lambda: not first.instances.open(), seconds=60)
        assert {first.generation, second.generation} == {was}, "nothing was lost, so it is the same"
        for build in map(first.builds.get, builds):
            assert (build.result, build.attempt) == (Result.SUCCESS, 1)
            lines = b"".join(chunk.data for chunk in first.logs.read(build.id))
            assert lines == b"".join(b"line %d\n" % n for n in range(LINES))
    assert Counter(guests.starts.values()) == {1: BUILDS}
    assert cloud.counts["create"] >= BUILDS
    assert not [vm for vm in cloud.things() if vm.alive]


def test_what_a_standby_lacks_is_noticed_before_anything_is_written(
    servers: PostgresPair, tmp_path: Path
) -> None:
    """Commits did not wait for it. The first transaction there, whichever it is, comes after."""
    ledger = Ledger.open(servers.url, data_dir=tmp_path)
    servers.promote()  # it follows no longer: what comes now is lost
    running(ledger)
    was = ledger.generation
    servers.kill_primary()
    submitted(ledger, "b-2")
    assert ledger.generation != was
    assert [build.id for build in ledger.builds.list()] == ["b-2"]
    ledger.close()


def test_copies_go_by_the_server_that_takes_writes(servers: PostgresPair, tmp_path: Path) -> None:
    """The standby is the first in the URL, which does not say what is wanted of it."""
    primary, standby = servers.ports
    url = f"postgresql://{USER}@127.0.0.1:{standby},127.0.0.1:{primary}/ledger"
    ledger = Ledger.open(url, data_dir=tmp_path)
    copy = ledger.copy_to(tmp_path / "copy")
    ledger.close()
    Ledger.put_back(url, tmp_path / "copy", version=copy.version, gone=(), now=0.0)
    assert Ledger.in_place(url).installation == copy.installation
