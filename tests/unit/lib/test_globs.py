"""Globs on the host's side: what the VM's side finds by them, and nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmrunner.errors import ConfigError
from vmrunner.guest.artifact_globs import find
from vmrunner.lib.globs import Globs, check

NAMES = st.sampled_from(["a", "b", "ab", ".a", "[", "a]", "*", "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.sampled_from(
    ["a", "b", "*", "**", "?", "a*", "[ab]", "[!a]", ".", "", "..", ".*", "[", "[[]", "é", "*]"]
)
GLOBS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


def tree(root: Path, paths: list[str]) -> None:
    for path in paths:
        place = root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        except OSError:
            continue  # one lies below another that is a file


@given(paths=st.lists(PATHS, max_size=8), globs=st.lists(GLOBS, min_size=1, max_size=3))
@example(paths=["dist"], globs=["dist/**"])  # a `**` for nothing, after a file
@example(paths=["dist/a"], globs=["dist/**/**", "dist/a/"])
@settings(max_examples=300, deadline=None)
def test_the_host_matches_what_the_guest_finds(paths: list[str], globs: list[str]) -> None:
    root = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        tree(root, paths)
        all_ = {str(p.relative_to(root)): p.is_dir() for p in root.rglob("*")}
        for glob in globs:
            _, fewest = find(str(root), [glob])
            brought = {p for p in all_ if any(p == f or p.startswith(f + "/") for f in fewest)}
            ours = Globs([glob])
            assert {p for p, d in all_.items() if ours.match(p, directory=d)} == brought, glob
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("globs", "path", "said"),
    [
        (["**"], "a/.git/config", "'a/.git' is git's own"),
        (["**"], ".GIT/x", "'.GIT' is git's own"),
        ([".git/**"], ".git/hooks/x", ""),
        (["*/x"], ".git/x", "'.git' is git's own"),
        (["**"], ".gitignore", ""),
        (["*"], "a\n::b", "'a\\n::b' has a control character"),
        (["a\nb"], "a\nb", ""),
        (["*"], "\u2028", "'\\u2028' has a control character"),
        (["*"], os.fsdecode(b"\xff"), ""),
    ],
)
def test_what_must_be_named_letter_by_letter(globs: list[str], path: str, said: str) -> None:
    assert Globs(globs).risk(path) == said


@pytest.mark.parametrize(
    "glob", ["", "/etc", "../x", "a/..", "a{b,c}", "~/x", "!x", "[a", "a/[", "[]"]
)
def test_a_glob_that_can_match_nothing_is_refused(glob: str) -> None:
    with pytest.raises(ConfigError, match="artifact: "):
        check(glob)


@pytest.mark.parametrize("glob", ["a", "**", "[[]x", "[]a]", "[!a]", "a{b}", "x~", "a/!b", "*.{}"])
def test_a_glob_that_can_match_is_taken(glob: str) -> None:
    check(glob)
