"""Bytes of sources that are coming: counted while they come, and no longer."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner.errors import QuotaUsedUp
from vmrunner.services.uploads import ComingBytes, Upload, Uploads


def begun(root: Path, coming: ComingBytes, *, unused: int) -> Upload:
    """One of a tenant that may leave 100 bytes unused, and has so many in the store."""
    paths: Any = SimpleNamespace(sources=root)
    transfer: Any = SimpleNamespace
    return Uploads(
        paths, transfer, "t-1", unused=lambda: (unused, unused), coming=coming, most=100, total=100
    ).begin(0)


def test_an_upload_that_ends_gives_all_its_bytes_back(tmp_path: Path) -> None:
    coming = ComingBytes()
    early, late = (begun(tmp_path, coming, unused=unused) for unused in (0, 90))
    late.write(b"x" * 5)
    early.write(b"x" * 90)  # what was there when it began still lets it in
    late.abandon()
    early.abandon()
    assert coming.add("t-1", 0) == (0, 0)


def test_more_than_may_lie_unused_is_refused_as_it_comes(tmp_path: Path) -> None:
    coming = ComingBytes()
    upload = begun(tmp_path, coming, unused=90)
    upload.write(b"x" * 10)
    with pytest.raises(QuotaUsedUp):
        upload.write(b"x")
    assert coming.add("t-1", 0) == (10, 10)
    upload.abandon()


def test_a_full_disk_leaves_nothing_of_an_upload(tmp_path: Path) -> None:
    coming = ComingBytes()
    upload = begun(tmp_path, coming, unused=0)
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), upload._file.fileno())
    upload.write(b"x")
    upload.abandon()
    assert list(tmp_path.iterdir()) == []
    assert coming.add("t-1", 0) == (0, 0)
