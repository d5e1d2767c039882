"""The default image's hash is worked out once for each version of what ends in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vmrunner.images import current_image, recipe
from vmrunner.lib import resources
from vmrunner.lib.local_images import DEFAULT

ASK: Callable[[], str] = current_image.current.__wrapped__


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/vmrunner/valid"


def test_it_is_what_the_recipe_says_and_is_remembered(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = recipe.image_hash(recipe.find(DEFAULT), recipe.Inputs.read())
    assert ASK() == expected
    (file,) = cache.iterdir()
    assert json.loads(file.read_text()) == expected
    monkeypatch.setattr(recipe, "image_hash", lambda *_: "another")
    assert ASK() == expected
    file.write_text('["no hash"]')
    assert ASK() == "another"


@pytest.mark.parametrize("changed", ["guest/build.py", "packer/scripts/50-trim.sh", "packer/new"])
def test_whatever_changed_in_it_is_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    for name, place in (("guest", resources.GUEST), ("packer", resources.path("packer"))):
        shutil.copytree(place, tmp_path / name)
    monkeypatch.setattr(resources, "GUEST", tmp_path / "guest")
    monkeypatch.setattr(resources, "path", lambda name: tmp_path / name)
    before = current_image._name()
    assert current_image._name() == before
    with (tmp_path / changed).open("a") as file:
        file.write("# more\n")
    assert current_image._name() != before
