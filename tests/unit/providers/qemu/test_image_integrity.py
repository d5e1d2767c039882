"""No VM boots from a file that is not what was built, nor from a cache that others may write."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from vmrunner.errors import BadOrder
from vmrunner.lib import cache_dirs, local_images
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import Network, Offer, Order, Role
from vmrunner.providers import qemu
from vmrunner.providers.qemu import image_integrity, launch_plan


def image(cache: Path) -> LocalImage:
    directory = cache_dirs.make(cache, "images", "aaaa1")
    for file in local_images.FILES:
        (directory / file).write_bytes(file.encode())
    manifest = {
        "hash": "aaaa1",
        "name": "default",
        "created": 1.0,
        "cmdline": "",
        "containers": [],
        "virtual_size": 1,
        "files": {
            file: {"size": len(file), "sha256": sha256(file.encode()).hexdigest()}
            for file in local_images.FILES
        },
    }
    (directory / local_images.MANIFEST).write_text(json.dumps(manifest))
    return local_images.read(directory)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read whole."""
    seen: list[Path] = []
    digest_of = image_integrity.digest_of
    monkeypatch.setattr(
        image_integrity, "digest_of", lambda path: seen.append(path) or digest_of(path)
    )
    return seen


def test_every_file_is_read_once_until_its_ctime_changes(tmp_path: Path, read: list[Path]) -> None:
    made, notes = image(tmp_path), tmp_path / image_integrity.NOTES
    for _ in range(2):
        image_integrity.check(made, notes)
    assert read == [made.disk, made.kernel, made.initrd]
    os.utime(made.kernel)
    image_integrity.check(made, notes)
    assert read[3:] == [made.kernel]


@pytest.mark.parametrize("name", local_images.FILES)
def test_a_changed_file_is_refused_by_name_with_the_fix(tmp_path: Path, name: str) -> None:
    made, notes = image(tmp_path), tmp_path / image_integrity.NOTES
    image_integrity.check(made, notes)
    changed = made.directory / name
    before = changed.stat()
    changed.write_bytes(b"x" * before.st_size)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a poisoner would
    for _ in range(2):
        with pytest.raises(BadOrder, match=f"{name} is not what was built") as caught:
            image_integrity.check(made, notes)
        assert str(made.directory) in str(caught.value.hint)


def test_without_a_place_for_notes_it_is_still_checked(tmp_path: Path, read: list[Path]) -> None:
    made = image(tmp_path)
    for _ in range(2):
        image_integrity.check(made, tmp_path / "nowhere" / image_integrity.NOTES)
    assert len(read) == 6


def test_the_cache_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; os.umask(0)\n"
        "from vmrunner.lib import cache_dirs\n"
        "cache_dirs.make(Path(sys.argv[1]), 'images')\n"
    )
    cache = tmp_path / "home" / ".cache" / "vmrunner"
    subprocess.run([sys.executable, "-c", program, str(cache)], check=True)
    for place in (cache / "images", cache, cache.parent, cache.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700, place


@pytest.mark.parametrize("place", ["", "images", "images/aaaa1", "images/aaaa1/disk.qcow2"])
def test_what_others_may_write_is_refused_with_the_fix(tmp_path: Path, place: str) -> None:
    made = image(tmp_path)
    for each in (tmp_path, tmp_path / "images", made.directory):
        each.chmod(0o755)
    (tmp_path / place).chmod(0o777)
    with pytest.raises(BadOrder, match="others may write") as caught:
        local_images.resolve(tmp_path, "aaaa1")
    assert f"chmod go-w {tmp_path / place}" in str(caught.value.hint)
    tmp_path.chmod(0o700)
    if place:
        assert local_images.resolve(tmp_path, "aaaa1").hash == "aaaa1", "nobody gets at it"


def test_what_belongs_to_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(tmp_path)
    someone = tmp_path.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: someone)
    owned = tmp_path.stat()
    monkeypatch.setattr(
        Path, "stat", lambda _: os.stat_result([*owned[:4], someone + 1, *owned[5:]])
    )
    with pytest.raises(BadOrder, match=f"belongs to the user {someone + 1}"):
        local_images.images(tmp_path)


def test_notes_of_another_users_cache_stop_nothing(tmp_path: Path) -> None:
    """A cache that was copied has notes about files that this user may not even ask for: each build
    ended in "disk.qcow2: Permission denied"."""
    made, notes = image(tmp_path), tmp_path / "verified.json"
    elsewhere = f"/{'x' * 300}/disk.qcow2"  # to ask for it is an error for root, too
    notes.write_text(json.dumps({elsewhere: [1, 2, 3, 4, "0" * 64]}))
    image_integrity.check(made, notes)
    assert set(json.loads(notes.read_text())) == {
        str(made.directory / name) for name in local_images.FILES
    }


@pytest.mark.parametrize("place", ["", "images", "images/aaaa1", "images/aaaa1/disk.qcow2"])
@pytest.mark.parametrize("wanted", [None, "aaaa1"])
def test_a_cache_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, wanted: str | None
) -> None:
    """As root copies it from elsewhere: it was a traceback's last line, and `image ls` knew of no
    image."""
    made = image(tmp_path)
    for each in (tmp_path, tmp_path / "images", made.directory):
        each.chmod(0o755)
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / place)
    with pytest.raises(BadOrder, match="this user may not read") as caught:
        local_images.resolve(tmp_path, wanted, lambda: "aaaa1")
    assert f"chown -R {os.geteuid()} {tmp_path / place} as root" in str(caught.value.hint)


def test_no_vm_is_made_of_a_changed_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(tmp_path / "cache")
    provider = qemu.open(
        "local", state_dir=tmp_path / "state", cache_dir=tmp_path / "cache", installation="i"
    )
    monkeypatch.setattr(launch_plan.HostPrograms, "find", lambda **_: None)
    made.kernel.write_bytes(b"x" * made.kernel.stat().st_size)
    order = Order(
        instance="vm-1",
        build="b-1",
        installation="i",
        generation="g",
        role=Role.BUILD,
        offer=Offer(
            scope=provider.scope,
            machine_type="",
            place="",
            cpus=1,
            memory=1,
            disk=1,
            image=made.hash,
        ),
        deadline=2e9,
        user_data=b"",
        network=Network.NONE,
    )
    with pytest.raises(BadOrder, match="vmlinuz is not what was built"):
        provider.create(order)
    assert list(provider.state.instances.iterdir()) == []
