"""A PostgreSQL and its standby, on two ports of loopback, for failovers."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.support.postgres import USER, home_of_server, programs, serving
from tests.support.scripted_app import wait_until
from tests.support.sshd import free_port

_NAME = "ledger"


@dataclass
class PostgresPair:
    """The primary is the first. `url` names both, and finds whoever takes writes."""

    ports: tuple[int, int]
    primary: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        first, second = self.ports
        hosts = f"127.0.0.1:{first},127.0.0.1:{second}"
        return f"postgresql://{USER}@{hosts}/{_NAME}?target_session_attrs=read-write"

    def ask(self, server: int, question: str) -> object:
        """The first value of the answer of one of them."""
        url = f"postgresql://{USER}@127.0.0.1:{self.ports[server]}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(question.encode()).fetchone()
            return row[0] if row else None

    def tell(self, server: int, *statements: str) -> None:
        url = f"postgresql://{USER}@127.0.0.1:{self.ports[server]}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def make_synchronous(self) -> None:
        """No commit is told before the standby has it."""
        self.tell(0, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        wait_until(lambda: self.ask(0, state) == "sync")

    def kill_primary(self) -> None:
        self.primary.send_signal(signal.SIGKILL)
        self.primary.wait()

    def promote(self) -> None:
        assert self.ask(1, "SELECT pg_promote()") is True


@contextmanager
def pair() -> Iterator[PostgresPair]:
    """The standby follows, and commits do not wait for it."""
    bin_ = programs()
    with ExitStack() as stack:
        (first, prefix), (second, _) = (stack.enter_context(home_of_server()) for _ in range(2))
        ports = (free_port(), free_port())
        subprocess.run(
            [*prefix, bin_ / "initdb", "-D", first / "data", "-U", USER, "-Atrust", "--no-sync"],
            check=True, capture_output=True, cwd=first,
        )  # fmt: skip

        def start(home: Path, port: int) -> subprocess.Popen[bytes]:
            command = [
                *prefix, bin_ / "postgres", "-D", home / "data", "-k", home, "-p", str(port),
                "-h", "127.0.0.1", "-F", "-c", "wal_receiver_timeout=2s",
            ]  # fmt: skip
            url = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
            return stack.enter_context(serving(command, home, url))

        primary = start(first, ports[0])
        subprocess.run(
            [
                *prefix, bin_ / "pg_basebackup", "-D", second / "data", "-R", "-c", "fast", "-N",
                "-h", "127.0.0.1", "-p", str(ports[0]), "-U", USER,
            ],
            check=True, capture_output=True, cwd=second,
        )  # fmt: skip
        start(second, ports[1])
        found = PostgresPair(ports, primary)
        found.tell(0, f"CREATE DATABASE {_NAME}")
        follows = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: found.ask(0, follows) == 1)
        yield found
