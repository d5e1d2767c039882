"""The end of a warm-up of a VM that will be parked: what it wrote is on its disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.units import UnitBox
from vmrunner.errors import ConfigError
from vmrunner.model import PoolKind, PoolSpec
from vmrunner.session import warm_up
from vmrunner.session.ssh.client import Completed


@dataclass
class Connection:
    """SSH to a VM whose commands end with `code`."""

    code: int = 0
    commands: list[str] = field(default_factory=list)
    closed: bool = False

    def run(self, command: str, **_: Any) -> Completed:
        self.commands.append(command)
        return Completed(self.code, b"", b"read-only file system")

    def close(self) -> None:
        self.closed = True


def warmed(monkeypatch: pytest.MonkeyPatch, connection: Connection, kind: PoolKind) -> Any:
    class Dialer:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def connect(self, *_: Any, **__: Any) -> Connection:
            return connection

    monkeypatch.setattr(warm_up.client, "Dialer", Dialer)
    spec = PoolSpec(name="fast", provider="aws", container="debian:trixie", kind=kind, size=1)
    job: Any = warm_up.WarmUpJob(
        instance="vm-1", epoch=1, address=None, access=None, spec=spec, box=UnitBox()
    )  # type: ignore[arg-type]
    return warm_up.WarmUp(job).run()


def test_what_is_parked_was_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()
    assert warmed(monkeypatch, connection, PoolKind.PARKED) is connection
    assert (connection.commands, connection.closed) == (["sync"], False)


def test_what_stays_on_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()
    warmed(monkeypatch, connection, PoolKind.HOT)
    assert connection.commands == []


def test_a_disk_that_takes_nothing_is_no_warm_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(code=1)
    with pytest.raises(ConfigError, match="cannot write its disk: read-only file system"):
        warmed(monkeypatch, connection, PoolKind.PARKED)
    assert connection.closed
