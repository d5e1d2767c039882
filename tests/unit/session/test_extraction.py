"""What is extracted beside a session: it holds up neither a cancel nor the end of a VM."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from vmrunner.errors import VmrunnerError
from vmrunner.lib.archive import files
from vmrunner.session import collect
from vmrunner.session.collect import Arrival, _Extraction
from vmrunner.session.ssh.client import ConnectionLost


class Cancelled(Exception):
    """Somebody wished the build to end."""


def test_a_cancel_is_heard_while_nothing_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(files, "extract", lambda *_, **__: go.wait(20))
    monkeypatch.setattr(collect, "LOOK", 0.01)
    looks: list[int] = []

    def pulse() -> float:
        looks.append(1)
        if len(looks) == 3:
            raise Cancelled
        return 1.0

    into = _Extraction(tmp_path, files.ArchiveCaps(), ["*"], gzip=False, pulse=pulse)
    into.take(b"[1]\n")
    with pytest.raises(Cancelled):
        into.take(b"x" * (1 << 20))  # more than a pipe holds
    into.stop()
    go.set()
    into.close()


def test_a_stopped_extraction_takes_no_more_entries(tmp_path: Path) -> None:
    into = _Extraction(tmp_path / "o", files.ArchiveCaps(), ["*"], gzip=False, pulse=lambda: 1.0)
    into.stop()
    into.take(b"[1]\n" + b"\0" * 4096)
    into.close()
    assert isinstance(into.error, VmrunnerError)
    assert "no caller waits" in str(into.error)


def test_reports_of_what_came_grow_rarer() -> None:
    """Each is an event of the build: hours of a slow line may not leave thousands."""
    now, heard = [0.0], []
    arrival = Arrival(heard.append, clock=lambda: now[0])
    for _ in range(24 * 3600):
        now[0] += 1
        arrival.add(1000)
    assert heard[:3] == [5000, 10_000, 15_000]
    assert 60 < len(heard) < 120
    assert heard == sorted(heard)


def test_no_thread_for_it_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    open_before = set(Path("/proc/self/fd").iterdir())
    with monkeypatch.context() as host:
        host.setattr(threading.Thread, "start", start)
        with pytest.raises(ConnectionLost, match="can't start new thread"):
            _Extraction(tmp_path, files.ArchiveCaps(), ["*"], gzip=False, pulse=lambda: 1.0)
    assert set(Path("/proc/self/fd").iterdir()) == open_before


def test_no_descriptor_for_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(ConnectionLost, match="Too many open files"):
        _Extraction(tmp_path, files.ArchiveCaps(), ["*"], gzip=False, pulse=lambda: 1.0)
