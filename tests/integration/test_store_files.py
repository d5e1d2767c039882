"""A store in a directory: two that put and delete at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from vmrunner.errors import StoreError
from vmrunner.store import digest_of
from vmrunner.store.files import FileStore


@pytest.mark.parametrize("step", ["open", "replace"])
def test_a_put_whose_directory_goes_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A delete of the last object in it removes the directory between two steps of the put."""
    store, file = FileStore(tmp_path / "store"), tmp_path / "file"
    file.write_text("x")
    times = iter((True, True, False))

    def vanish() -> None:
        if next(times, False):
            shutil.rmtree(tmp_path / "store" / "a")

    opening, replace = os.open, Path.replace

    def open_late(path: Path, *given: Any, **named: Any) -> int:
        if str(path).endswith(".part"):
            vanish()
        return opening(path, *given, **named)

    def replace_late(path: Path, target: Path) -> Path:
        vanish()
        return replace(path, target)

    if step == "open":
        monkeypatch.setattr(os, "open", open_late)
    else:
        monkeypatch.setattr(Path, "replace", replace_late)
    store.put("a/b/c", file, digest=digest_of(file))
    assert b"".join(store.read("a/b/c")) == b"x"


def test_a_source_that_is_not_there_is_no_race(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    with pytest.raises(StoreError, match="No such file"):
        store.put("a/b", tmp_path / "missing", digest="")
