"""A daemon on the fake cloud whose host gives no more of one thing for a while: threads, open
files, memory, disk, or connections to its database.

    python -m tests.support.limited_host THING DIRECTORY [URL]

Prints one line of JSON: what went on under the limit, and what became of the builds after it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg

from tests.support.ledger_builds import orders
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.ledger import Ledger
from vmrunner.lib import ids, process
from vmrunner.model import (
    TAG,
    BuildRecord,
    BuildSpec,
    BuildState,
    InstanceState,
    Limits,
    Reason,
    Result,
    Step,
)
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider
from vmrunner.runtime import daemon
from vmrunner.runtime.daemon import Daemon
from vmrunner.session import End

BUILDS: Final = 40
#: More than the engine and the reaper have, less than all the builds want.
THREADS: Final = 45
FILES: Final = 4  # beside those that are open
MEMORY: Final = 24 << 20
PATIENCE: Final = 60.0
TAKER: Final = "others"


class Wall(Clock):
    def __call__(self) -> float:
        return time.time()


@dataclass
class Paths:
    sources: Path
    artifacts: Path
    wake: Path


class Session:
    """A build that has a file open, as a connection is one, and ends when it may."""

    may_end = threading.Event()
    refused: ClassVar[list[str]] = []

    def __init__(self, job: Any, reporter: Any) -> None:
        self.reporter = reporter
        self.reason: Reason | None = None

    def stop(self, reason: Reason) -> None:
        self.reason = reason

    def run(self) -> End:
        for state in (BuildState.CONNECTING, BuildState.PREPARING, BuildState.RUNNING):
            self.reporter.state(state)
        file = None
        while file is None:
            try:
                file = Path(os.devnull).open("rb")  # noqa: SIM115
            except OSError as error:
                self.refused.append(str(error))
                self.may_end.wait(0.1)
        with file:
            self.may_end.wait(PATIENCE)
        result = Result.SUCCESS if self.reason is None else Result.CANCELLED
        reason = self.reason or Reason.EXIT_CODE
        code = 0 if self.reason is None else None
        return End(result=result, reason=reason, exit_code=code, message="", lost=False)


@contextlib.contextmanager
def soft_limit(what: int, most: int) -> Iterator[None]:
    former = resource.getrlimit(what)
    resource.setrlimit(what, (most, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, former)


@contextlib.contextmanager
def full_disk(root: Path) -> Iterator[None]:
    """It is a disk of its own, and small."""
    file = root / "others"
    with file.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(size))
    try:
        yield
    finally:
        file.unlink()


@contextlib.contextmanager
def connections_of_others(url: str) -> Iterator[None]:
    """All that the server has left, and each that comes back. Those that this process has end: its
    builds may be running by now, and want no more of it."""
    taken: list[psycopg.Connection] = []
    over = threading.Event()

    def take() -> None:
        while not over.is_set():
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.append(psycopg.connect(url, application_name=TAKER))
            over.wait(0.05)

    with psycopg.connect(url, autocommit=True) as own:
        thread = threading.Thread(target=take)
        thread.start()
        own.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name <> %s AND pid <> pg_backend_pid()",
            [TAKER],
        )
    try:
        yield
    finally:
        over.set()
        thread.join()
        for connection in taken:
            connection.close()


def limited(thing: str, root: Path, url: str) -> contextlib.AbstractContextManager[None]:
    if thing == "threads":
        return soft_limit(resource.RLIMIT_NPROC, THREADS)
    if thing == "files":
        free = os.dup(0)
        os.close(free)
        return soft_limit(resource.RLIMIT_NOFILE, free + FILES)
    if thing == "memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return soft_limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)
    if thing == "disk":
        return full_disk(root)
    return connections_of_others(url)


class Troubles(logging.Handler):
    """What was told of errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith(("delete ", "%s %s")):  # what is killed
            return
        error = record.exc_info[1] if record.exc_info else ""
        self.texts.append(f"{record.getMessage()} {error}")


class Host:
    """The daemon, and who uses it."""

    def __init__(self, root: Path, url: str) -> None:
        self.ledger = Ledger.open(url, data_dir=root)
        self.cloud = Cloud(Wall())
        engine = Engine(
            self.ledger, {"fake": FakeProvider("fake", self.cloud)}, Session,
            EngineLimits(limits=Limits(max_instances=BUILDS)), process=process.current(),
            kind="serve", paths=Paths(root, root, root / "wake"), orders=orders(self.ledger),
        )  # fmt: skip
        self.daemon = Daemon(engine, self.ledger)
        self.thread = threading.Thread(target=self.daemon.run, kwargs={"signals": False})
        self.began = 0
        inner = self.daemon._reaping.run

        def run(**how: Any) -> Any:
            self.began += 1
            return inner(**how)

        self.daemon._reaping.run = run  # type: ignore[method-assign]

        self.troubles = Troubles()
        logging.getLogger("vmrunner").addHandler(self.troubles)

    def submit(self) -> BuildRecord:
        spec = BuildSpec(
            steps=(Step(run="x"),), provider="fake", container="c", timeout=600, ttl=1000
        )
        return self.ledger.builds.submit(spec, id=ids.build_id(), now=time.time())[0]

    def states(self) -> Counter[str]:
        return Counter(str(build.state) for build in self.ledger.builds.list())

    def is_bitten(self) -> bool:
        """True if something could not be had."""
        return bool(self.troubles.texts or Session.refused)

    def overdue(self) -> Callable[[], bool]:
        """Leave a VM of this ledger that no row knows, past its deadline; ask whether it is
        gone."""
        tags = {
            "installation": self.ledger.installation, "generation": self.ledger.generation,
            "role": "build", "instance": ids.instance_id(), "build": "b-1",
            "expires-at": str(int(time.time()) - 1),
        }  # fmt: skip
        vm = self.cloud.plant(SCOPE, {TAG + name: value for name, value in tags.items()})
        return lambda: not vm.alive


def until(true: Callable[[], bool]) -> bool:
    """Wait for it; False where it did not come."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def main(thing: str, root: Path, url: str) -> dict[str, Any]:
    daemon.PASS, daemon.CHECK, daemon.SWEEP = 1.0, 0.2, 2.0  # type: ignore[misc]
    root.mkdir(mode=0o700, exist_ok=True)
    host = Host(root, url or f"sqlite:///{root}/ledger.db")
    host.thread.start()
    until(lambda: host.began > 0)
    outcomes: dict[str, Any] = {}
    for _ in range(BUILDS):
        host.submit()
    with limited(thing, root, url):
        outcomes["bitten"] = until(host.is_bitten)
        outcomes["killed"] = until(host.overdue())
        # Once more, when whatever was kept for this is used up.
        outcomes["killed again"] = until(host.overdue())
        outcomes["troubles"] = [*host.troubles.texts, *Session.refused][:10]
    outcomes["running"] = until(lambda: host.states() == {"running": BUILDS})
    Session.may_end.set()
    outcomes["finished"] = until(lambda: host.states() == {"finished": BUILDS})
    outcomes["results"] = Counter(str(build.result) for build in host.ledger.builds.list())
    gone = InstanceState.GONE
    outcomes["gone"] = until(lambda: all(row.state is gone for row in host.ledger.instances.list()))
    outcomes["alive"] = sum(thing.alive for thing in host.cloud.things())
    host.daemon.stop()
    host.thread.join(PATIENCE)
    outcomes["stopped"] = not host.thread.is_alive()
    return outcomes


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    _, thing, directory, *rest = sys.argv
    print(json.dumps(main(thing, Path(directory), *rest or [""])), flush=True)
