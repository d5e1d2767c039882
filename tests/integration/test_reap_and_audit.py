"""`vmrunner reap` and `vmrunner audit` as users and cron meet them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.blackbox import NEWBORN, TTL, Cli, data_of, serving, started, tags_of
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.file_cloud import FileCloud
from vmrunner.runtime.background import BackgroundEngines


@pytest.fixture
def leftover(home: Path, cli: Cli, cloud: FileCloud, monkeypatch: pytest.MonkeyPatch) -> str:
    """A VM whose build runs and whose engine is gone."""
    monkeypatch.setattr(BackgroundEngines, "ensure", lambda *_: None)
    with serving(home, cli):
        return started(cli, cloud)


def test_reap_says_what_why_age_lateness_and_cost(
    cli: Cli, cloud: FileCloud, leftover: str
) -> None:
    (row,) = cli("vm", "ls", "-o", "json").items
    assert cli("reap", "--dry-run", "-o", "json").items == []
    cloud.advance(TTL + 600)
    table = cli("reap", "--dry-run").out.decode()
    head, line = table.splitlines()
    assert head.split() == [
        "WHAT",
        "KIND",
        "ID",
        "REASON",
        "AGE",
        "LATE",
        "PROVIDER",
        "COST",
        "OUTCOME",
    ]
    assert line.split()[:4] == ["delete", "instance", leftover, "expired"]
    assert line.endswith("nothing done")
    assert cloud.alive().keys() == {leftover}
    (reaped,) = cli("reap", "-o", "json").items
    assert (reaped["id"], reaped["instance"], reaped["build"]) == (
        leftover,
        row["id"],
        row["build"],
    )
    assert (reaped["reason"], reaped["outcome"]) == ("expired", "accepted")
    assert 600 <= reaped["late"] < 900
    assert TTL + 600 <= reaped["age"] < TTL + 900
    assert reaped["cost"] == pytest.approx(reaped["age"], abs=60)  # a dollar a second
    assert not cloud.alive()
    assert cli("vm", "ls", "-o", "json").items == []


@pytest.mark.parametrize(
    ("shown", "outcome", "states"), [(True, "closed", []), (False, "missing", ["deleting"])]
)
def test_reap_says_what_became_of_a_row_without_a_vm(
    cli: Cli, cloud: FileCloud, leftover: str, *, shown: bool, outcome: str, states: list[str]
) -> None:
    """Not "nothing done", which a dry run says: the row is another now."""
    if shown:
        cloud.kill(leftover)
    else:
        cloud.change(lambda state: state["vms"].pop(leftover))
    cloud.advance(TTL + 600)
    (planned,) = cli("reap", "--dry-run", "-o", "json").items
    assert planned["outcome"] is None
    (line,) = cli("reap", "-o", "json").items
    assert (line["reason"], line["outcome"]) == ("expired", outcome)
    assert [row["state"] for row in cli("vm", "ls", "-o", "json").items] == states


def test_audit_tells_what_is_alive_and_should_not_be(
    home: Path, cli: Cli, cloud: FileCloud, leftover: str
) -> None:
    now = cloud.now()
    tags = tags_of(home, "vm-ghost", now + TTL)
    expired = cloud.plant("fake", tags_of(home, "vm-late", now - 100))
    assert _faults(cli) == {("past_deadline", expired)}  # however young it is
    ghost = cloud.plant("fake", tags)
    bad = cloud.plant("fake", {k: v for k, v in tags.items() if "expires" not in k})
    near = cloud.plant("fake", {"Name": "x"}, near="image vmrunner-1")
    cloud.plant("fake", tags | {"vmrunner:installation": "theirs"})
    cloud.plant("fake", {"Name": "x"})
    assert _faults(cli) == {("past_deadline", expired)}  # the others are newborn
    cloud.advance(NEWBORN + 60)
    cloud.kill(expired)
    assert _faults(cli) == {("unknown", ghost), ("badly_tagged", bad), ("untagged", near)}
    cloud.kill(leftover)
    assert ("not_there", leftover) in _faults(cli)
    cloud.advance(TTL)
    assert ("past_deadline", ghost) in _faults(cli)
    done = cli("audit")
    assert done.code == 7
    assert ghost in done.out.decode()


def _faults(cli: Cli) -> set[tuple[str, str]]:
    done = cli("audit", "-o", "json")
    assert done.code == (7 if done.items else 0)
    return {(line["fault"], line["ref"]) for line in done.items}


def test_audit_kills_nothing_and_is_content_with_a_clean_cloud(
    cli: Cli, cloud: FileCloud, leftover: str
) -> None:
    done = cli("audit")
    assert (done.code, done.err) == (0, b"vmrunner: no survivor\n")
    cloud.advance(TTL + 600)
    assert cli("audit").code == 7
    assert cloud.alive().keys() == {leftover}


@pytest.mark.parametrize("ledger", ["there", "broken"])
def test_machines_of_other_runners_are_audited_by_tag_and_age(
    home: Path, cli: Cli, cloud: FileCloud, ledger: str
) -> None:
    """No ledger is needed for that."""
    cli("ps")
    if ledger == "broken":
        (data_of(home) / "ledger.db").write_bytes(b"nonsense" * 1000)
    old = cloud.plant("fake", {"team": "ci"})
    cloud.plant("fake", {"team": "other"})
    words = ("audit", "--tag", "team=ci", "--older-than", "6h", "-o", "json")
    assert cli(*words).code == 0
    cloud.advance(6 * 3600 + 60)
    cloud.plant("fake", {"team": "ci"})
    done = cli(*words)
    assert done.code == 7
    assert [line["ref"] for line in done.items] == [old]
    refused = cli("audit", "--tag", "team=ci")
    assert (refused.code, b"--older-than: missing beside --tag" in refused.err) == (2, True)
    assert cli("audit", "--older-than", "6h").code == 2
    assert cli("audit", "--tag", "team", "--older-than", "6h").code == 2
    assert cli("audit", "--tag", "team=ci", "--older-than", "soon").code == 2


def test_an_audit_without_its_ledger_goes_by_the_tags(
    home: Path, cli: Cli, cloud: FileCloud
) -> None:
    cli("ps")
    late = cloud.plant("fake", tags_of(home, "vm-late", cloud.now() - 100))
    cloud.plant("fake", tags_of(home, "vm-young", cloud.now() + 100))
    (data_of(home) / "ledger.db").write_bytes(b"nonsense" * 1000)
    done = cli("audit", "-o", "json")
    assert done.code == 7
    faults = {(line["fault"], line["ref"]) for line in done.items}
    assert faults == {("unread", None), ("past_deadline", late)}


def test_for_cron_nothing_is_said_when_all_is_well(
    cli: Cli, cloud: FileCloud, leftover: str
) -> None:
    del leftover
    for words in (("reap", "-q"), ("audit", "--quiet"), ("audit", "-q", "-o", "json")):
        done = cli(*words)
        assert (done.code, done.out, done.err) == (0, b"", b"")
    cloud.advance(TTL + 600)
    assert cli("audit", "-q").out
    assert cli("reap", "-q").out


def test_doctor_tells_what_a_reap_would_end(cli: Cli, cloud: FileCloud, leftover: str) -> None:
    """A build runs, and its engine was killed."""
    del leftover
    found = {(f["check"], f["level"]) for f in cli("doctor", "-o", "json").items}
    assert ("ledger", "warning") in found
    assert ("reaper", "warning") not in found
    cloud.advance(TTL + 600)
    warned = [f for f in cli("doctor", "-o", "json").items if f["level"] == "warning"]
    (reaper,) = [f for f in warned if f["check"] == "reaper"]
    assert "(expired)" in reaper["message"]
    assert cli("reap").code == 0
    assert ("reaper", "warning") not in {
        (f["check"], f["level"]) for f in cli("doctor", "-o", "json").items
    }
