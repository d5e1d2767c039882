"""JUnit reports among artifacts: what failed is told, and no hostile report costs much."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmrunner.services import junit_reports
from vmrunner.services.junit_reports import ReadReports, ReportedTests, results
from vmrunner.store.build_artifacts import LocalArtifacts

PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" tests="4">
<testcase classname="tests.test_a" name="test_good" time="0.5" />
<testcase classname="tests.test_a" name="test_bad" time="1,000.25"><failure
 message="assert 1 == 2">def test_bad():
&gt; assert 1 == 2 &lt;b&gt;
</failure></testcase>
<testcase classname="tests.test_a" name="test_ugly" time="x"><error message="boom"/>
<failure message="and more"/></testcase>
<testcase classname="tests.test_a" name="test_later"><skipped message="not now"/></testcase>
</testsuite></testsuites>
"""
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><testsuite>&b;</testsuite>'


def read(root: Path, **files: str | bytes) -> ReportedTests | None:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/').replace('_DASH_', '-')}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return results(LocalArtifacts(root))


def test_failed_tests_are_told(tmp_path: Path) -> None:
    found = read(tmp_path, out__junit_DASH_unit=PYTEST)
    assert found is not None
    assert (found.total, found.failed, found.skipped, found.seconds) == (4, 2, 1, 1000.75)
    bad, ugly = found.failures
    assert (bad.name, bad.suite, bad.seconds) == ("test_bad", "tests.test_a", 1000.25)
    assert bad.message == "assert 1 == 2"
    assert bad.text == "def test_bad():\n> assert 1 == 2 <b>"
    assert (ugly.message, ugly.seconds) == ("boom", None)
    assert bad.report == "out/junit-unit.xml"
    assert found.unread == []


@pytest.mark.parametrize("name", ["TEST_DASH_a", "a__b__TEST_DASH_x", "junit", "my_junit_out"])
def test_reports_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, **{name: PYTEST}) is not None


def test_other_files_are_no_reports(tmp_path: Path) -> None:
    assert read(tmp_path, pom=PYTEST, junit__other=PYTEST) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "DTD"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuite/>', "DTD"),
        ("<testsuite>" * 60, "nested"),
        ("<testsuite>", "no element found"),
        ("no xml", "syntax error"),
        (b"<?xml version='1.0' encoding='nope'?><testsuite/>", "unknown encoding"),
        ("x" * (junit_reports.FILE_BYTES + 1), "larger"),
        ("", "no element found"),
    ],
)
def test_a_hostile_report_is_told_and_not_read(tmp_path: Path, text: str | bytes, why: str) -> None:
    found = read(tmp_path, junit_a=text, junit_b=PYTEST)
    assert found is not None
    assert [why in line for line in found.unread] == [True], found.unread
    assert found.failed == 2, "the others are read"


def test_many_failures_are_counted_and_few_are_kept(tmp_path: Path) -> None:
    case = f"<testcase name='{'n' * 1000}'><failure message='{'m' * 1000}'>{'t' * 9000}</failure>"
    found = read(tmp_path, junit=f"<testsuite>{(case + '</testcase>') * 300}</testsuite>")
    assert found is not None
    assert (found.failed, len(found.failures)) == (300, junit_reports.FAILURES)
    longest = found.failures[0]
    assert (len(longest.name), len(longest.message), len(longest.text)) == (300, 300, 4000)


def test_what_is_read_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        read(tmp_path, **{f"junit{n}": PYTEST})
    monkeypatch.setattr(junit_reports, "FILES", 3)
    found = results(LocalArtifacts(tmp_path))
    assert found is not None
    assert (found.total, found.unread[0][:6]) == (12, "2 more")
    ticks: Iterator[float] = itertools.count(step=2.0)
    slow = results(LocalArtifacts(tmp_path), clock=lambda: next(ticks))
    assert slow is not None
    assert slow.total == 4


def test_a_link_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").symlink_to("/etc/passwd")
    assert results(LocalArtifacts(tmp_path)) is None


def test_results_are_read_once_for_each_epoch(tmp_path: Path) -> None:
    read(tmp_path, junit=PYTEST)
    reports, reads = ReadReports(most=2), []

    def find() -> LocalArtifacts:
        reads.append(1)
        return LocalArtifacts(tmp_path)

    for epoch in (1, 1, 2, 1, 3, 1, 2):
        assert reports.of("b-1", epoch, find) is not None
    assert len(reads) == 4
