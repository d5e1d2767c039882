"""Local images: found by hash or name, and never used when damaged."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from vmrunner.errors import BadOrder
from vmrunner.lib import local_images


def make(cache: Path, digest: str, *, name: str = "default", created: float = 1.0) -> Path:
    directory = cache / "images" / digest
    directory.mkdir(parents=True)
    for file in local_images.FILES:
        (directory / file).write_bytes(b"12345")
    manifest: dict[str, Any] = {
        "hash": digest,
        "name": name,
        "created": created,
        "cmdline": "root=/dev/vda",
        "containers": ["debian:trixie"],
        "virtual_size": 1 << 30,
        "files": {file: {"size": 5, "sha256": "…"} for file in local_images.FILES},
    }
    (directory / local_images.MANIFEST).write_text(json.dumps(manifest))
    return directory


def test_newest_first_and_complete_only(tmp_path: Path) -> None:
    make(tmp_path, "aaaa1", created=1)
    make(tmp_path, "bbbb1", created=2)
    (make(tmp_path, "cccc1", created=3) / local_images.KERNEL).unlink()
    (tmp_path / "images" / ".new-x").mkdir()
    assert [image.hash for image in local_images.images(tmp_path)] == ["bbbb1", "aaaa1"]
    assert local_images.images(tmp_path / "nowhere") == []


def test_an_image_that_was_built_again_is_another(tmp_path: Path) -> None:
    directory = make(tmp_path, "aaaa1")
    former = local_images.read(directory)
    manifest = json.loads((directory / local_images.MANIFEST).read_text())
    manifest["files"][local_images.DISK]["sha256"] = "another"
    (directory / local_images.MANIFEST).write_text(json.dumps(manifest))
    assert local_images.read(directory).sha256 != former.sha256


def test_resolve_by_name_hash_or_start_of_one(tmp_path: Path) -> None:
    make(tmp_path, "aaaa1", created=1)
    make(tmp_path, "aaaa2", created=2)
    make(tmp_path, "bbbb1", name="big", created=3)
    assert local_images.resolve(tmp_path).hash == "aaaa2"
    assert local_images.resolve(tmp_path, "default").hash == "aaaa2"
    assert local_images.resolve(tmp_path, "big").hash == "bbbb1"
    assert local_images.resolve(tmp_path, "aaaa1").hash == "aaaa1"
    assert local_images.resolve(tmp_path, "bbbb").size == 15
    with pytest.raises(BadOrder, match="several"):
        local_images.resolve(tmp_path, "aaaa")


def test_the_default_is_the_one_that_this_version_makes(tmp_path: Path) -> None:
    def current() -> str:
        return "aaaa1"

    for wanted in (None, "default"):
        with pytest.raises(local_images.NotMade, match="image"):
            local_images.resolve(tmp_path, wanted, current)
    make(tmp_path, "aaaa2", created=2)
    for wanted in (None, "default"):
        with pytest.raises(local_images.NotMade, match="another version"):
            local_images.resolve(tmp_path, wanted, current)
    assert local_images.resolve(tmp_path, "aaaa2", current).hash == "aaaa2"
    image = make(tmp_path, "aaaa1", created=1)
    for wanted in (None, "default"):
        assert local_images.resolve(tmp_path, wanted, current).hash == "aaaa1"
    (image / local_images.MANIFEST).unlink()
    with pytest.raises(BadOrder, match="damaged") as damaged:
        local_images.resolve(tmp_path, None, current)
    assert not isinstance(damaged.value, local_images.NotMade)


def test_an_image_may_tell_its_packages(tmp_path: Path) -> None:
    directory = make(tmp_path, "aaaa1")
    assert local_images.read(directory).packages is None
    manifest = json.loads((directory / local_images.MANIFEST).read_text())
    manifest["packages"] = ["docker.io", "runsc"]
    (directory / local_images.MANIFEST).write_text(json.dumps(manifest))
    assert local_images.read(directory).packages == ("docker.io", "runsc")


def test_without_a_default_the_newest_is_taken(tmp_path: Path) -> None:
    make(tmp_path, "aaaa1", name="small", created=1)
    make(tmp_path, "bbbb1", name="big", created=2)
    assert local_images.resolve(tmp_path).hash == "bbbb1"


def test_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(BadOrder, match=r"no local image yet .*vmrunner image build"):
        local_images.resolve(tmp_path)
    make(tmp_path, "aaaa1")
    with pytest.raises(BadOrder, match=r"'other' is not in .*there: default"):
        local_images.resolve(tmp_path, "other")


def shorten(directory: Path) -> None:
    (directory / local_images.DISK).write_bytes(b"1234")


def lose_kernel(directory: Path) -> None:
    (directory / local_images.KERNEL).unlink()


def spoil_manifest(directory: Path) -> None:
    (directory / local_images.MANIFEST).write_text("{")


def empty_manifest(directory: Path) -> None:
    (directory / local_images.MANIFEST).write_text("{}")


def rename(directory: Path) -> None:
    text = (directory / local_images.MANIFEST).read_text()
    (directory / local_images.MANIFEST).write_text(text.replace("bbbb1", "cccc1"))


@pytest.mark.parametrize("damage", [shorten, lose_kernel, spoil_manifest, empty_manifest, rename])
def test_a_damaged_image_is_refused_with_the_fix(tmp_path: Path, damage: Any) -> None:
    make(tmp_path, "aaaa1", created=1)
    damage(make(tmp_path, "bbbb1", created=2))
    with pytest.raises(BadOrder, match=r"bbbb1 is damaged: .*remove .*vmrunner image build"):
        local_images.resolve(tmp_path, "bbbb1")


@pytest.mark.parametrize("damage", [shorten, lose_kernel])
def test_a_damaged_image_does_not_yield_to_older_ones(tmp_path: Path, damage: Any) -> None:
    make(tmp_path, "aaaa1", created=1)
    damage(make(tmp_path, "bbbb1", created=2))
    with pytest.raises(BadOrder, match="bbbb1 is damaged"):
        local_images.resolve(tmp_path)


def test_what_was_replaced_and_is_not_used_may_go(tmp_path: Path) -> None:
    def aged(digest: str, used: float, **options: Any) -> None:
        os.utime(make(tmp_path, digest, **options), (used, used))

    aged("aaaa1", 10.0, created=1)
    aged("aaaa2", 80.0, created=2)  # replaced, and used a while ago
    aged("aaaa3", 10.0, created=3)  # the newest of its name stays, however old
    aged("bbbb1", 10.0, name="big", created=1)
    (old,) = local_images.replaced(tmp_path, now=100.0, keep=50.0)
    assert old.hash == "aaaa1"
    local_images.remove(old)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"aaaa2", "aaaa3", "bbbb1"}
    local_images.used(local_images.resolve(tmp_path, "aaaa2"))
    assert local_images.replaced(tmp_path, now=time.time() + 10, keep=50.0) == []


def test_what_a_removal_that_died_left_holds_up_no_other(tmp_path: Path) -> None:
    make(tmp_path, "aaaa1")
    unfinished = tmp_path / "images" / f"{local_images.GONE}aaaa1"
    unfinished.mkdir()
    (unfinished / "disk.qcow2").touch()
    (image,) = local_images.images(tmp_path)
    local_images.remove(image)
    assert list((tmp_path / "images").iterdir()) == []
