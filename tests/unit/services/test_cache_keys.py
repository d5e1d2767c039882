"""Keys that name the contents of a source's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vmrunner.errors import ConfigError
from vmrunner.model import CacheRule
from vmrunner.services import cache_keys


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / ".gitignore").write_text("node_modules/\n")
    (root / "node_modules").mkdir()
    (root / "node_modules" / "d.lock").write_text("ignored")
    (root / "a.lock").write_text("one")
    (root / "sub" / "b.lock").write_text("two")
    (root / ".git" / "c.lock").write_text("git's own")
    return root


def key(text: str, source: Path | str | None) -> str:
    rule = CacheRule(key=text, path="/cache")
    return cache_keys.named([rule], None if source is None else str(source))[0].key


def test_a_key_follows_contents_and_names(source: Path) -> None:
    first = key("pip-{hash:**/*.lock}-x", source)
    assert first.startswith("pip-")
    assert len(first) == len("pip-") + cache_keys.LETTERS + len("-x")
    assert key("pip-{hash:**/*.lock}-x", source) == first
    (source / ".git" / "c.lock").write_text("another")
    (source / "node_modules" / "d.lock").write_text("another")
    (source / "link.lock").symlink_to("/etc/passwd")
    assert key("pip-{hash:**/*.lock}-x", source) == first
    (source / "sub" / "b.lock").rename(source / "sub" / "c.lock")
    second = key("pip-{hash:**/*.lock}-x", source)
    (source / "a.lock").write_text("One")
    assert len({first, second, key("pip-{hash:**/*.lock}-x", source)}) == 3


def test_a_name_that_is_no_text_counts_too(source: Path) -> None:
    first = key("{hash:*.lock}", source)
    (source / os.fsdecode(b"\xff.lock")).write_text("three")
    assert key("{hash:*.lock}", source) != first


def test_a_key_without_a_hash_needs_no_source() -> None:
    assert key("pip", None) == "pip"


@pytest.mark.parametrize("place", [None, "git+https://host/repo@main"])
def test_a_hash_needs_a_directory(place: str | None) -> None:
    with pytest.raises(ConfigError, match="there is none"):
        key("{hash:a.lock}", place)


def test_a_glob_that_matches_nothing_is_no_constant(source: Path) -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        key("{hash:*.toml}", source)
