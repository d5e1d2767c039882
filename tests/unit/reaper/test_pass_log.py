"""What a reaper's passes say into a log."""

from __future__ import annotations

import pytest

from vmrunner.model import Death
from vmrunner.reaper.pass_log import NEW, REPEAT_EVERY, PassLog
from vmrunner.reaper.report import Report, ReportLine

HOLE = "aws: ec2|1|us-east-1 instance: "


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", logger="vmrunner.serve")
    return caplog


def test_a_lasting_hole_is_told_first_and_once_daily(log: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    tell = PassLog(lambda: now[0])
    while now[0] < 2.5 * REPEAT_EVERY:
        tell(Report(unread=(f"{HOLE}request {now[0]}",)))
        now[0] += 300
    assert len(log.records) == 3


def test_each_hole_is_told_by_itself_and_again_on_return(
    log: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    tell = PassLog(lambda: now[0])
    tell(Report(unread=(f"{HOLE}x", "aws: ec2|1|us-east-1 disk: x", f"{HOLE}y")))
    assert len(log.records) == 2
    tell(Report())  # a pass over the ledger alone reads no region
    tell(Report(unread=(f"{HOLE}x",)))
    assert len(log.records) == 2
    now[0] += NEW
    tell(Report(unread=(f"{HOLE}x",)))
    assert len(log.records) == 3


def test_a_kill_is_logged_with_its_ids(log: pytest.LogCaptureFixture) -> None:
    line = ReportLine(
        provider="aws", what="delete", kind="instance", id="i-1", reason=Death.EXPIRED,
        instance="vm-1", build="b-1",
    )  # fmt: skip
    PassLog(lambda: 0.0)(Report(lines=(line,)))
    (record,) = log.records
    assert vars(record)["fields"] == {
        "build": "b-1", "instance": "vm-1", "provider": "aws", "reason": "expired",
    }  # fmt: skip
