"""What is extracted beside a session: it holds up neither a cancel nor the end of a VM."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vmrunner.errors import VmrunnerError
from vmrunner.lib.archive import files
from vmrunner.session import collect
from vmrunner.session.collect import _Extraction


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
    assert "nobody waits" in str(into.error)
