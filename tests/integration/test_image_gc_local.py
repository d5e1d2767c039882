"""`vmrunner image gc` over the local images."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.commandline import Cli
from tests.unit.test_image_store import make
from vmrunner import images

DAY = 86_400.0


def old(cache: Path, digest: str, age: float, name: str = "default") -> Path:
    """So old, and no VM was made of it since."""
    at = time.time() - age
    directory = make(cache, digest, name=name, created=at)
    os.utime(directory, (at, at))
    return directory


def test_old_local_images_go_and_what_builds_get_or_had_lately_stays(home: Path, cli: Cli) -> None:
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
    assert all(path.exists() for path in (current, newest, named, lately, other))
    assert len(list(newest.parent.iterdir())) == 5  # and no rest of it
