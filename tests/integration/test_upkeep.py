"""The commands of docs/service.md, in its order, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.support.command_line import Cli
from tests.support.postgres import Server


def test_the_service_is_upgraded_rotated_backed_up_and_restored(
    cli: Cli, home: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", postgres.empty())
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", old)
    assert b"db upgrade" in cli("ps").err
    assert cli("db", "upgrade").out == cli("db", "current").out != b"none\n"
    build = cli("run", "--", "say", "hello").last[3]

    monkeypatch.setenv("VMRUNNER_SECRET_KEY", f"{old},{new}")
    assert cli("db", "rotate-key", "-o", "json").items[-1]["resealed"] == 0
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", f"{new},{old}")
    done = cli("db", "rotate-key", "-o", "json")
    assert (done.code, done.items[-1]["resealed"]) == (0, 1)
    assert b"others may be dropped" in done.err
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", new)

    assert cli("backup", str(home / "backup")).code == 0
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", postgres.empty())
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", old)
    assert b"not the secret" in cli("restore", str(home / "backup")).err
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", new)
    assert cli("restore", str(home / "backup"), "--dry-run").code == 0
    assert cli("restore", str(home / "backup")).code == 0
    assert cli("logs", build).out == b"hello\n"
    assert cli("drain", "--off").code == 0
    assert cli("run", "--", "say", "again").out == b"again\n"
