"""A private PostgreSQL: in a directory of its own, on a Unix socket alone, gone with the tests. And
a PgBouncer before it, as a proxy that gives each transaction another session of the server."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from vmrunner.ledger import Ledger

USER = "vmrunner"
_START = 60  # seconds
#: More databases than any test has at once. Older ones are dropped: each takes 8 MB,
#: of memory where tests' files are there.
_KEPT = 16


class Server:
    """A running server. `new()` makes a database with the newest tables, `empty()` one without."""

    def __init__(self, sockets: Path) -> None:
        self.sockets = sockets
        self._names = (f"ledger_{n}" for n in itertools.count(1))
        self._kept: deque[str] = deque()
        template = next(self._names)
        self._execute(f"CREATE DATABASE {template}")
        Ledger.upgrade(self.url(template))
        # A copy of files is faster than one through the log, which is the default.
        self._copy = f"TEMPLATE {template} STRATEGY FILE_COPY"

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={self.sockets}"

    def new(self) -> str:
        return self._create(self._copy)

    def empty(self) -> str:
        return self._create("TEMPLATE template0")

    def _create(self, how: str) -> str:
        name = next(self._names)
        self._execute(f"CREATE DATABASE {name} {how}")
        self._kept.append(name)
        if len(self._kept) > _KEPT:
            self._execute(f"DROP DATABASE {self._kept.popleft()} WITH (FORCE)")
        return self.url(name)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.fail("PostgreSQL is missing: apt-get install postgresql", pytrace=False)
    return found[-1].parent


def _as_ordinary_user(home: Path) -> list[str]:
    """PostgreSQL refuses to run as root. It dies with this process, however that ends."""
    prefix = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(home, user.pw_uid, user.pw_gid)
        prefix += ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return prefix


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{server.args!r} did not start:\n{log.read_text()}", pytrace=False)
            time.sleep(0.05)
        else:
            return


@contextmanager
def home_of_server() -> Iterator[tuple[Path, list[str]]]:
    """A directory of a server, and how programs are run as its owner. Where tests have their files
    in memory it is there too: it makes many databases."""
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    home = Path(tempfile.mkdtemp(prefix="vmrunner-postgres-", dir=root))
    try:
        yield home, _as_ordinary_user(home)
    finally:
        shutil.rmtree(home)


@contextmanager
def serving(
    command: list[str | Path], home: Path, url: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A program, once it answers there; by default on its socket."""
    log = home / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=home
        )
    try:
        _wait(server, url or f"postgresql://{USER}@/postgres?host={home}", log)
        yield server
    finally:
        server.send_signal(signal.SIGINT)  # a "fast" shutdown: it does not wait for its clients
        server.wait(timeout=_START)


@contextmanager
def running(connections: int = 200) -> Iterator[Server]:
    bin_ = programs()
    with home_of_server() as (home, prefix):
        data = home / "data"
        subprocess.run(
            [*prefix, bin_ / "initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync"],
            check=True, capture_output=True, cwd=home,
        )  # fmt: skip
        command = [
            *prefix, bin_ / "postgres", "-D", data, "-k", home, "-h", "",
            "-F", "-c", f"max_connections={connections}", "-c", "max_wal_size=64MB",
        ]  # fmt: skip
        with serving(command, home):
            yield Server(home)


class PgBouncer:
    """A proxy before a server. It remembers nothing of a session between two transactions."""

    def __init__(self, sockets: Path) -> None:
        self._sockets = sockets

    def before(self, url: str) -> str:
        """The same database through it."""
        return f"{url.partition('?')[0]}?host={self._sockets}"


@contextmanager
def bouncing(server: Server) -> Iterator[PgBouncer]:
    """Few sessions for many clients, so that two transactions of one seldom share one."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.fail("PgBouncer is missing: apt-get install pgbouncer", pytrace=False)
    with home_of_server() as (home, prefix):
        users, settings = home / "users", home / "pgbouncer.ini"
        users.write_text(f'"{USER}" ""\n')
        settings.write_text(
            f"[databases]\n* = host={server.sockets}\n"
            "[pgbouncer]\npool_mode = transaction\nmax_prepared_statements = 0\n"
            f"listen_port = 5432\nunix_socket_dir = {home}\nauth_type = trust\n"
            f"auth_file = {users}\ndefault_pool_size = 8\nserver_round_robin = 1\n"
            "server_idle_timeout = 5\n"
        )
        with serving([*prefix, program, settings], home):
            yield PgBouncer(home)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for each worker of pytest-xdist."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Server) -> Iterator[PgBouncer]:
    with bouncing(postgres) as proxy:
        yield proxy
