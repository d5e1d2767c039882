"""Reports of tests among a build's artifacts, in the form of JUnit: which tests failed, and why.

A report is the build's own word, and hostile: what is read of it is bounded, and one with a DTD is
not read at all, so that it has no entities.
"""

from __future__ import annotations

import logging
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from vmrunner.errors import NotFound, StoreError
from vmrunner.model import BuildRecord
from vmrunner.services.follow import ended
from vmrunner.store.build_artifacts import ArtifactEntry, ArtifactFiles

log = logging.getLogger("vmrunner")

#: By the name of a file: `junit.xml`, `build/junit-unit.xml`, `target/surefire-reports/TEST-x.xml`.
_NAMED: Final = re.compile(r"(?:.*/)?(?:[^/]*junit[^/]*|TEST-[^/]*)\.xml", re.IGNORECASE)
FILES: Final = 200  # that are read
FILE_BYTES: Final = 4 << 20
ALL_BYTES: Final = 16 << 20
SECONDS: Final = 3.0  # in which they are read
FAILURES: Final = 100  # tests that are told one by one
_WORDS: Final = 300  # characters of a name or a message
_TEXT: Final = 4000  # characters of what a test wrote: its end
_DEPTH: Final = 50
_KEPT: Final = 16  # builds whose reports were read last


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedTest:
    """A test that failed. `text`: the end of what it wrote, such as a traceback; `seconds` None:
    not told."""

    name: str
    suite: str
    report: str
    seconds: float | None
    message: str
    text: str


@dataclass(slots=True)
class ReportedTests:
    """Results of all tests in a build's reports. `failures`: the first of the `failed`; `unread`:
    reports that could not be read, and why."""

    total: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[FailedTest] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def results(
    files: ArtifactFiles, *, clock: Callable[[], float] = time.monotonic
) -> ReportedTests | None:
    """Read the reports among these artifacts; None: there is none. Raises StoreError."""
    entries = [
        entry
        for entry in files.ls()
        if stat.S_ISREG(entry.mode) and _NAMED.fullmatch(entry.path) is not None
    ]
    if not entries:
        return None
    found = ReportedTests()
    until, size = clock() + SECONDS, 0
    for number, entry in enumerate(entries):
        size += entry.size
        if number >= FILES or size > ALL_BYTES or clock() >= until:
            found.unread.append(f"{len(entries) - number} more: there are too many, or too large")
            break
        _read(found, entry, files)
    return found


def of_build(
    build: BuildRecord,
    find: Callable[[str], ArtifactFiles],
    read: Callable[[str, int, Callable[[], ArtifactFiles]], ReportedTests | None] | None = None,
) -> ReportedTests | None:
    """The results of a build whose artifacts `find` finds; None: it brought no report, or they are
    not to be had. `read`: one that remembers."""
    if build.collected is None or build.removed_at is not None or not ended(build):
        return None
    try:
        if read is None:
            return results(find(build.id))
        return read(build.id, build.collected, lambda: find(build.id))
    except (NotFound, StoreError) as error:
        log.warning("reports of tests: %s", error)
        return None


def _read(found: ReportedTests, entry: ArtifactEntry, files: ArtifactFiles) -> None:
    if entry.size > FILE_BYTES:
        found.unread.append(f"{entry.path}: larger than {FILE_BYTES >> 20} MiB")
        return
    report = _Report(found, entry.path)
    try:
        report.parse(files.read(entry))
    except (expat.ExpatError, _NotRead, ValueError, LookupError) as error:
        found.unread.append(f"{entry.path}: {error}"[:_WORDS])
    except OSError:  # it is gone meanwhile
        found.unread.append(f"{entry.path}: it is gone")


class _NotRead(Exception):
    pass


class _Report:
    """One report, as its parser tells of it."""

    def __init__(self, found: ReportedTests, path: str) -> None:
        self._found, self._path = found, path
        self._depth = 0
        self._case: dict[str, str] | None = None
        self._failure: dict[str, str] | None = None
        self._counted = False
        self._text = ""

    def parse(self, pieces: Iterable[bytes]) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse
        for piece in pieces:
            parser.Parse(piece, False)
        parser.Parse(b"", True)

    def _refuse(self, *_: object) -> None:
        raise _NotRead("it has a DTD")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH:
            raise _NotRead("it is nested too deeply")
        if name == "testcase":
            self._case, self._counted = attributes, False
            self._found.total += 1
            self._found.seconds += _seconds(attributes) or 0.0
        elif self._case is not None and name in ("failure", "error"):
            self._failure, self._text = attributes, ""
        elif self._case is not None and name == "skipped":
            self._found.skipped += 1

    def _characters(self, text: str) -> None:
        if self._failure is not None:
            self._text = (self._text + text)[-_TEXT:]

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "testcase":
            self._case = None
        elif self._failure is not None and name in ("failure", "error"):
            self._note(self._failure)
            self._failure = None

    def _note(self, failure: dict[str, str]) -> None:
        if self._case is None or self._counted:  # of one test the first counts
            return
        self._counted = True
        self._found.failed += 1
        if len(self._found.failures) >= FAILURES:
            return
        self._found.failures.append(
            FailedTest(
                name=self._case.get("name", "")[:_WORDS] or "(a test without a name)",
                suite=self._case.get("classname", "")[:_WORDS],
                report=self._path[:_WORDS],
                seconds=_seconds(self._case),
                message=failure.get("message", "")[:_WORDS],
                text=self._text.strip("\n"),
            )
        )


def _seconds(attributes: dict[str, str]) -> float | None:
    """Seconds, from a number with or without commas; None for what is none."""
    text = attributes.get("time", "").replace(",", "")
    if re.fullmatch(r"\d{1,9}(\.\d{1,12})?", text) is None:
        return None
    return float(text)


class ReadReports:
    """The results of builds whose reports were read last, by the build's id and the epoch at which
    its artifacts were brought. Thread-safe."""

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], ReportedTests | None] = OrderedDict()

    def of(self, build: str, epoch: int, find: Callable[[], ArtifactFiles]) -> ReportedTests | None:
        """Return them. Raises NotFound, StoreError."""
        key = (build, epoch)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = results(find())
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found
