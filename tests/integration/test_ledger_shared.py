"""Several users of one ledger in one process, processes that fork, and a command beside them: what
was committed stays. SQLite loses it when its locks are dropped behind its back."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from tests.support.ledger_builds import submitted
from vmrunner import Runner
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, fork_safety
from vmrunner.ledger import ledger as store
from vmrunner.ledger.statements import Rows
from vmrunner.lib import local_files

BESIDE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    print(*(row[0] for row in database.execute("SELECT id FROM builds ORDER BY id")))
database.close()
"""


def beside(path: Path) -> list[str]:
    """Another process reads the ledger, and believes on closing it that it was the last one."""
    done = subprocess.run(
        [sys.executable, "-c", BESIDE, path], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def opened(path: Path) -> list[str]:
    """The ledger's files that this process has open, as the kernel names them."""
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return [link for link in links if link.startswith(str(path))]


def locks(path: Path) -> int:
    """The locks that this process holds on the ledger's files."""
    inodes = {str(file.stat().st_ino) for file in path.parent.glob(f"{path.name}*")}
    held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return sum(
        words[4] == str(os.getpid()) and words[5].rpartition(":")[2] in inodes
        for words in held
        if words[1] != "->"
    )


def child(work: Callable[[], bool]) -> int:
    """Do it in a forked process; its exit code: 0 when it says False."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = int(work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(again(path)) as ledger:
        yield ledger


def again(path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{path}", data_dir=path.parent)


def test_a_second_runner_and_a_command_beside_lose_no_build(home: Path) -> None:
    path = home / "data/vmrunner/ledger.db"
    first, second = Runner(), Runner()
    submitted(first.app.ledger, "b-1")
    assert [build.id for build in second.list()] == ["b-1"]
    ps = [sys.executable, "-m", "vmrunner", "ps"]
    assert "b-1" in subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    submitted(first.app.ledger, "b-2")
    assert not [name for name in opened(path) if name.endswith("(deleted)")]
    assert beside(path) == ["b-1", "b-2"]
    first.app.close()
    submitted(second.app.ledger, "b-3")  # which the first must not close
    second.app.close()
    assert beside(path) == ["b-1", "b-2", "b-3"]
    assert opened(path) == []


def test_threads_that_open_and_close_it_lose_no_build(ledger: Ledger, path: Path) -> None:
    def life(n: int) -> None:
        mine = again(path)
        submitted(mine, f"b-{n:02}")
        mine.close()

    with ThreadPoolExecutor(6) as threads:
        lives = [threads.submit(life, n) for n in range(24)]
        for _ in range(4):
            beside(path)
        for life_ in lives:
            life_.result()
    assert beside(path) == [f"b-{n:02}" for n in range(24)]
    assert not [name for name in opened(path) if name.endswith("(deleted)")]


def test_one_pool_serves_all_who_open_it(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    others = [again(path), again(tmp_path / "link" / path.name)]
    assert {id(node._database) for node in (ledger, *others)} == {id(ledger._database)}
    for node in others:
        node.close()
        node.close()  # once more says nothing of the others
    submitted(ledger)
    assert opened(path)
    ledger.close()
    assert opened(path) == []
    with closing(again(path)) as other:
        assert other.builds.get("b-1")


def test_a_ledger_that_was_replaced_is_another(ledger: Ledger, path: Path) -> None:
    submitted(ledger)
    path.rename(path.with_name("old.db"))
    other = again(path)
    assert other.builds.list() == []
    other.close()


def test_a_child_has_locks_of_its_own(ledger: Ledger, path: Path) -> None:
    """What the parent had open is not what the child goes on with, nor what it closes."""
    submitted(ledger, "b-1")

    def work() -> bool:
        submitted(ledger, "b-2")
        beside(path)
        submitted(again(path), "b-3")
        deleted = any(name.endswith("(deleted)") for name in opened(path))
        return deleted or locks(path) == 0

    assert child(work) == 0
    assert beside(path) == ["b-1", "b-2", "b-3"]
    submitted(ledger, "b-4")
    assert locks(path) > 0
    assert beside(path) == ["b-1", "b-2", "b-3", "b-4"]


def test_a_fork_waits_for_a_transaction(ledger: Ledger, path: Path) -> None:
    """Threads write while others fork: each child can use the ledger, and nothing is lost."""
    stop = threading.Event()
    written: list[str] = []

    def write() -> None:
        while not stop.is_set():
            submitted(ledger, f"b-{len(written):06}")
            ledger.builds.get(f"b-{len(written):06}")
            written.append(f"b-{len(written):06}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        codes = [child(lambda n=n: not submitted(ledger, f"c-{n}")) for n in range(8)]  # type: ignore[misc]
    finally:
        stop.set()
        writer.join()
    assert codes == [0] * 8
    assert beside(path) == [*written, *(f"c-{n}" for n in range(8))]


def test_a_look_that_was_interrupted_hides_nothing(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not read to its end keeps its connection at what there was when it began."""
    submitted(ledger, "b-1")
    kept: list[Rows] = []

    def interrupted(rows: Rows) -> None:
        kept.append(rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Rows, "first", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.builds.get("b-1")
    with sqlite3.connect(path) as beside:
        beside.execute("UPDATE builds SET message = 'other'")
    beside.close()
    assert ledger.builds.get("b-1").message == "other"


def test_a_child_of_a_transaction_is_told_so(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that does not come out of its transaction: the child cannot have the ledger, and
    harms nobody who does."""
    monkeypatch.setattr(fork_safety, "FORK_TIMEOUT", 0.05)
    inside, out = threading.Event(), threading.Event()

    def stay(_: object) -> None:
        inside.set()
        out.wait()

    def refused() -> bool:
        for call in (lambda: ledger.builds.list(), lambda: again(path)):
            with pytest.raises(LedgerError, match="forked while another thread"):
                call()
        return False

    def work() -> bool:
        refused()
        ledger.close()
        return child(refused) != 0 or not opened(path)  # SQLite would tidy up under its parent

    with ThreadPoolExecutor(1) as threads:
        staying = threads.submit(ledger._database.write, stay)
        inside.wait()
        assert child(work) == 0
        out.set()
        staying.result()
    submitted(ledger, "b-1")
    assert child(lambda: ledger.builds.get("b-1").id != "b-1") == 0
    assert beside(path) == ["b-1"]


AUDITED = """
import os, sys
opens = []

def hear(event, args):
    if event == "open" and "ledger.db" in str(args[0]) and not args[2] & os.O_EXCL:
        opens.append(args)

sys.addaudithook(hear)
from vmrunner.cli import main
for line in sys.stdin.read().splitlines():
    main(line.split())
print(opens, file=sys.stderr)
assert not opens, opens
"""


def test_no_command_opens_it_but_through_sqlite(home: Path) -> None:
    """Else it would drop, in a process that has it open, the locks of those who have."""
    commands = "ps\nshow x\nlogs x\nvm ls\ndoctor\naudit\nreap\nconfig show\ndrain\ndb current\n"
    done = subprocess.run(
        [sys.executable, "-c", AUDITED],
        input=commands + "db upgrade\nimage ls\n", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (home / "data/vmrunner/ledger.db").is_file()


def test_ctrl_c_amid_a_write_leaves_no_lock(ledger: Ledger, path: Path) -> None:
    """It comes when SQLite has begun, and SQLAlchemy does not know of it yet."""
    submitted(ledger, "b-1")

    def interrupt(_: object) -> None:
        event.remove(ledger._database._writer, "begin", interrupt)
        raise KeyboardInterrupt

    event.listen(ledger._database._writer, "begin", interrupt)
    with pytest.raises(KeyboardInterrupt):
        submitted(ledger, "b-2")
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE").close()
        other.execute("ROLLBACK").close()
    submitted(ledger, "b-3")
    assert beside(path) == ["b-1", "b-3"]


def test_no_fork_waits_for_another_process_that_opens_the_ledger(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, flock = threading.Event(), fcntl.flock

    def waits(descriptor: int, how: int) -> None:
        waiting.set()
        flock(descriptor, how)

    held = os.open(path.parent, os.O_RDONLY)
    flock(held, fcntl.LOCK_EX)
    monkeypatch.setattr(local_files.fcntl, "flock", waits)
    opening = threading.Thread(target=lambda: again(path).close())
    opening.start()
    try:
        assert waiting.wait(10)
        assert fork_safety.opening.acquire(timeout=10), "whoever forks takes this"
        fork_safety.opening.release()
    finally:
        os.close(held)
        opening.join()


def test_closing_a_forgotten_ledger_takes_no_connection_from_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any collection of garbage may close what was forgotten, also while the next is opened: a
    connection that was at work then would never be closed."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    forgotten = Ledger.open(url, data_dir=tmp_path)
    read = store._read_identity

    def meanwhile(connection: Connection) -> Any:
        forgotten.close()
        return read(connection)

    monkeypatch.setattr(store, "_read_identity", meanwhile)
    Ledger.open(url, data_dir=tmp_path).close()
    assert opened(tmp_path / "ledger.db") == []


def test_whoever_is_late_leaves_no_connection_open(ledger: Ledger, path: Path) -> None:
    """The last user closes it while a thread reads; then a thread writes to it still."""
    inside, go = threading.Event(), threading.Event()

    def read(_: Connection) -> None:
        inside.set()
        assert go.wait(60)

    late = threading.Thread(target=ledger._database.read, args=(read,))
    late.start()
    assert inside.wait(60)
    ledger.close()
    go.set()
    late.join()
    assert opened(path) == []
    ledger.pause(True, 1.0)
    assert ledger.paused
    assert opened(path) == []
