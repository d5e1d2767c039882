"""What we make in the user's home is ours alone to write, under any umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmrunner.lib import local_files, private_dirs
from vmrunner.lib.wakeup import Listener
from vmrunner.providers.qemu import accel


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(root: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_dir()}


def test_every_directory_on_the_way_is_made_with_the_mode(tmp_path: Path) -> None:
    assert private_dirs.make(tmp_path / "a/b/c") == tmp_path / "a/b/c"
    assert modes(tmp_path) == {0o700}
    private_dirs.make(tmp_path / "a/b/d")
    assert modes(tmp_path) == {0o700}


def test_data_cache_and_sockets_are_made_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_files.ready_directory(tmp_path / "data/vmrunner", field="x", fix="y")
    Listener(tmp_path / "run/wake", "one").close()
    monkeypatch.setattr(accel, "KVM", tmp_path)
    monkeypatch.setattr(accel, "version", lambda _: "1")
    monkeypatch.setattr(accel, "boots", lambda *_: True)
    assert accel.choose("auto", qemu="q", kernel=tmp_path, cache_dir=tmp_path / "cache/vmrunner")
    assert modes(tmp_path) == {0o700}


def test_only_its_owner_may_write_an_images_parts(tmp_path: Path) -> None:
    with private_dirs.guarded():
        (tmp_path / "image").mkdir()
        (tmp_path / "image/disk").touch()
    assert stat.S_IMODE((tmp_path / "image").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "image/disk").stat().st_mode) == 0o644
    assert os.umask(0) == 0, "as it was before"
