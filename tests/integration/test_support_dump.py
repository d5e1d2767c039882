"""`support dump`: one archive for whoever helps, with no secret in it."""

from __future__ import annotations

import base64
import json
import tarfile
import time
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import spec
from vmrunner.ledger import Ledger
from vmrunner.model import NotifyEndpoint, NotifyEvent, TokenScope

#: What must not be in it, each planted in a place of its own.
CANARIES = {
    "variable": "canary-one-in-a-variable",
    "password": "canary/two%in:the@database-url",
    "webhook secret": "canary-three-signs-webhooks",
    "webhook URL": "canary-four-T024-hooks",
    "secret key": base64.urlsafe_b64encode(b"canary-five-is-the-key-of-all-sealed"[:32]).decode(),
    "build's variable": "canary-six-in-a-builds-env",
    "build's secret": "canary-seven-is-sealed",
    "label": "canary-eight-names-a-customer",
    "log: token": "vmr_canaryNineLooksLikeAToken",
    "log: bearer": "canary-ten.is.a-bearer",
    "log: cloud": "AKIACANARYELEVEN1234",
    "log: URL": "canary-twelve-in-a-url",
    "secret file": "canary-thirteen-in-a-file",
    "two lines": "canary-fourteen\nof-two-lines",
}  # fmt: skip


@pytest.fixture
def planted(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """A home in which each secret lies somewhere, and the token of a caller."""
    c = CANARIES
    monkeypatch.setenv("PAGER_TOKEN", c["variable"])
    monkeypatch.setenv("CHAT", c["webhook secret"])
    monkeypatch.setenv("DEPLOY_SECRET", c["two lines"])
    monkeypatch.setenv("VMRUNNER_SECRET_KEY", c["secret key"])
    (home / "s").write_text(c["secret file"])
    (home / "s").chmod(0o600)
    hooks = [
        {"name": "a", "url": f"https://h.example/{c['webhook URL']}", "secret": "CHAT"},
        {"name": "b", "url": "https://h.example/b", "secret": f"@{home / 's'}"},
    ]
    monkeypatch.setenv("VMRUNNER_NOTIFY", json.dumps(hooks))
    data = home / "data" / "vmrunner"
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    assert cli("ps").code == 0
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data, secret_key=c["secret key"])
    build = spec(labels={"customer": c["label"]}, env={"A": c["build's variable"]})
    sealed = {"S": c["build's secret"].encode()}
    ledger.builds.submit(build, id="b-1", now=time.time(), secrets=sealed)
    token, _ = ledger.tokens.create("ada", frozenset(TokenScope), by="x", now=1.0)
    ledger.outbox.declare([NotifyEndpoint(name="a", events=frozenset(NotifyEvent))], time.time())
    ledger.outbox.add(NotifyEvent.BUDGET, "all 0", time.time(), data=c["variable"])
    ledger.close()
    (data / "engine.log").write_text(
        f"started with {c['log: token']}\nAuthorization: Bearer {c['log: bearer']}\n"
        f"{c['log: cloud']} {c['variable']} {base64.b64encode(c['variable'].encode()).decode()}\n"
        f"https://u:{c['log: URL']}@h/ {c['webhook secret']} {c['secret file']}\n"
        f"{c['two lines']}\nthe last line\n"
    )
    return token


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            assert member.mode == 0o600
            found[member.name.removeprefix("vmrunner-support/")] = file.read()
        return found


@pytest.mark.usefixtures("planted")
def test_no_secret_is_in_it_and_all_facts_are(cli: Cli, home: Path, planted: str) -> None:
    more = home / "serve.log"
    more.write_text(f"{CANARIES['variable']}\n{planted}\nwhat serve said\n")
    done = cli("support", "dump", "--to", "d.tgz", "--log", "serve.log", "--no-doctor")
    assert done.code == 0, done.err
    assert (home / "d.tgz").stat().st_mode & 0o777 == 0o600
    files = unpacked(home / "d.tgz")
    everything = b"\n".join(files.values())
    for where, canary in {**CANARIES, "caller's token": planted}.items():
        for form in (canary, json.dumps(canary)[1:-1], base64.b64encode(canary.encode()).decode()):
            assert form.encode() not in everything, where
        assert not [name for name, data in files.items() if canary[7:].encode() in data], where
    documents = {n: json.loads(d) for n, d in files.items() if n.endswith(".json")}
    assert documents["versions.json"]["distributions"]["pydantic"]
    assert documents["counts.json"]["builds"] == {"queued": 1}
    assert documents["database.json"]["pending"] == []
    assert documents["doctor.json"] == "left out"
    assert [alarm["event"] for alarm in documents["alarms.json"]] == ["alarm.budget"]
    assert "VMRUNNER_SECRET_KEY" in documents["configuration.json"]["variables"]
    keys = {row["key"] for row in documents["configuration.json"]["values"]}
    assert keys >= {"limits.max_ttl", "notify", "database.url"}
    assert files["logs/engine.log"].endswith(b"the last line\n")
    assert b"what serve said" in files["logs/serve.log"]


def test_a_password_of_a_database_is_not_in_it(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a ledger that cannot be reached the end of the dump."""
    url = "postgresql://u:canary%2Ftwo%40here@127.0.0.1:1/d?password=canaryThree&connect_timeout=1"
    monkeypatch.setenv("VMRUNNER_DATABASE_URL", url)
    done = cli("support", "dump", "--to", "d.tgz")
    assert done.code == 0, done.err
    files = unpacked(home / "d.tgz")
    everything = b"\n".join(files.values())
    assert b"canary" not in everything
    assert "LedgerError" in json.loads(files["counts.json"])["error"]
    assert json.loads(files["doctor.json"])


def test_a_private_key_of_many_lines_is_not_in_it(cli: Cli, home: Path) -> None:
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    log = home / "serve.log"
    log.write_text(f"a\n{begin}\ncanary\ncanary\n{end}\nb\n{begin}\ncanary\n")
    assert cli("support", "dump", "--to", "d.tgz", "--log", "serve.log", "--no-doctor").code == 0
    assert unpacked(home / "d.tgz")["logs/serve.log"] == b"a\n***\nb\n***"


def test_a_dump_overwrites_nothing_and_is_bounded(cli: Cli, home: Path) -> None:
    (home / "d.tgz").write_text("mine")
    assert cli("support", "dump", "--to", "d.tgz", "--no-doctor").code == 5
    assert (home / "d.tgz").read_text() == "mine"
    assert cli("support", "dump", "--log", "nope").code == 2
    (home / "big.log").write_bytes(b"a line of the log\n" * 500_000)
    assert cli("support", "dump", "--to", "e.tgz", "--log", "big.log", "--no-doctor").code == 0
    end = unpacked(home / "e.tgz")["logs/big.log"]
    assert 500_000 < len(end) <= 512 << 10
    assert end.startswith(b"a line")


def test_an_archive_that_cannot_be_written_is_told(cli: Cli, home: Path) -> None:
    for archive in home / "nowhere" / "x", Path("/proc/x"):
        done = cli("support", "dump", "--no-doctor", "--to", str(archive))
        assert (done.code, done.out) == (1, b"")
        message = f"error: the archive cannot be written to {archive}: No such file or directory"
        assert message in done.err.decode()


def test_a_configuration_that_is_refused_is_dumped_too(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for help has one of these. No log is in it: its secrets are not known."""
    monkeypatch.setenv("PAGER_TOKEN", CANARIES["variable"])
    (home / "vmrunner.toml").write_text(f'[limits]\nmax_ttl = "{CANARIES["variable"]}"\n')
    (home / "serve.log").write_text("a line\n")
    done = cli("support", "dump", "--to", "d.tar.gz", "--log", "serve.log")
    assert done.code == 0, done.err
    assert b"limits.max_ttl" in done.err
    files = unpacked(home / "d.tar.gz")
    assert files.keys() == {"README.txt", "versions.json", "configuration.json"}
    configuration = json.loads(files["configuration.json"])
    assert "limits.max_ttl: '***': not a duration" in configuration["error"]
    assert {"source": "project", "path": str(home / "vmrunner.toml"), "state": "used"} in (
        configuration["files"]
    )
    assert not any(CANARIES["variable"].encode() in data for data in files.values())
