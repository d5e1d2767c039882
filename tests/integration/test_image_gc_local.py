"""`vmrunner image gc` over the local images."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.image_cli import app, spoil_builds, wait_for
from tests.unit.lib.test_local_images import make
from vmrunner import images
from vmrunner.cli import main
from vmrunner.cli.commands import image_gc
from vmrunner.errors import ProviderError
from vmrunner.services.gc import gc_images

DAY = 86_400.0


def old(cache: Path, digest: str, age: float, name: str = "default") -> Path:
    """So old, and no VM was made of it since."""
    at = time.time() - age
    directory = make(cache, digest, name=name, created=at)
    os.utime(directory, (at, at))
    return directory


def test_old_local_images_go_and_those_in_use_stay(home: Path, cli: Cli) -> None:
    cache = home / "cache" / "vmrunner"
    current = old(cache, images.current(), 9 * DAY)
    newest, gone = old(cache, "aaaa1", DAY), old(cache, "aaaa2", 2 * DAY)
    named = old(cache, "aaaa3", 3 * DAY)
    lately = old(cache, "aaaa4", 4 * DAY)
    os.utime(lately)  # a VM is made of it
    other = old(cache, "bbbb1", 5 * DAY, name="python")
    with (home / "vmrunner.toml").open("a") as file:
        file.write('image = "aaaa3"\n')
    planned = cli("image", "gc", "--keep", "1", "--dry-run", "-o", "json")
    assert {item["ref"]: item["why"] for item in planned.items} == {
        "aaaa1": "newest",
        "aaaa2": "old",
        "aaaa3": "promoted",
        "aaaa4": "in use",
        images.current(): "promoted",
        "bbbb1": "newest",
    }
    assert gone.exists()
    done = cli("image", "gc", "--keep", "1")
    assert (done.code, b"removed" in done.out) == (0, True)
    assert not gone.exists()
    assert [p.name for p in (current, newest, named, lately, other) if not p.exists()] == []
    assert len(list(newest.parent.iterdir())) == 5  # and no rest of it


@pytest.mark.parametrize("word", ["python", "aaaa1", "aaaa"])
def test_what_a_queued_build_names_stays(home: Path, cli: Cli, word: str) -> None:
    """By its name, its hash or the start of one."""
    cache = home / "cache" / "vmrunner"
    queued = old(cache, "aaaa1", 9 * DAY, name="python")
    rest = old(cache, "bbbb1", 8 * DAY)
    wait_for(word)
    assert cli("image", "gc", "--keep", "0").code == 0
    assert (queued.exists(), rest.exists()) == (True, False)


def test_what_somebody_will_want_outlives_the_night(home: Path) -> None:
    """Old, replaced and long unused: what a queued build names stays, and what the configuration
    names."""
    cache = home / "cache" / "vmrunner"
    digests = ("aaaa1", "bbbb1", "cccc1", "dddd1")
    newest, queued, named, gone = (
        old(cache, digest, age * 300 * DAY) for age, digest in enumerate(digests, 1)
    )
    with (home / "vmrunner.toml").open("a") as file:
        file.write('image = "cccc1"\n')
    wait_for("bbbb1")
    with app() as parts:
        gc_images(parts.ledger, parts.settings, parts.paths)
    assert [path.exists() for path in (newest, queued, named, gone)] == [True, True, True, False]


def test_a_start_that_several_have_keeps_them_all(home: Path, cli: Cli) -> None:
    """One that went would make it mean the other."""
    cache = home / "cache" / "vmrunner"
    both = [old(cache, digest, 9 * DAY) for digest in ("aaaa1", "aaaa2")]
    wait_for("aaaa")
    assert cli("image", "gc", "--keep", "0").code == 0
    assert all(path.exists() for path in both)


def test_nothing_goes_where_a_row_cannot_be_read(home: Path, cli: Cli) -> None:
    image = old(home / "cache" / "vmrunner", "aaaa1", 9 * DAY)
    wait_for("aaaa1")
    spoil_builds()
    done = cli("image", "gc", "--keep", "0")
    assert (done.code, b"may name any image" in done.err, image.exists()) == (1, True, True), (
        done.err
    )


@pytest.mark.usefixtures("cli")
def test_a_template_goes_with_its_image(home: Path) -> None:
    cache = home / "cache" / "vmrunner"
    old(cache, images.current(), DAY)
    with (home / "vmrunner.toml").open("a") as file:
        file.write('[providers.local]\nkind = "qemu"\n')
    template_dirs = {}
    for image in (images.current(), "aaaa9"):
        template_dirs[image] = place = cache / "templates" / f"of-{image}"
        place.mkdir(parents=True)
        for name in ("ram", "state", "disk.qcow2"):
            (place / name).touch()
        (place / "template.json").write_text(json.dumps({"spec": {"image": image}}))
    assert main(("image", "gc", "--dry-run")) == 0
    assert all(place.exists() for place in template_dirs.values())
    assert main(("image", "gc")) == 0
    assert [image for image, place in template_dirs.items() if place.exists()] == [images.current()]


@pytest.mark.usefixtures("cli")
def test_what_is_said_not_to_be_deleted_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise ProviderError("its data directory cannot be used: no image is deleted")

    cache = home / "cache" / "vmrunner"
    gone = old(cache, "aaaa9", 9 * DAY)
    old(cache, "aaaa8", DAY)
    with (home / "vmrunner.toml").open("a") as file:
        file.write('[providers.local]\nkind = "qemu"\n')
    monkeypatch.setattr(image_gc, "_opened", opened)
    assert main(("image", "gc", "--keep", "1")) != 0
    assert gone.exists()
