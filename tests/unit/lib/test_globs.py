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
from vmrunner.lib import globs as globs_
from vmrunner.lib.globs import Globs, check, check_all

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
@example(paths=["a/b/ab/a"], globs=["**/*/**/a*", "**/**/b/**"])
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
        together, each = Globs(globs), [Globs([glob]) for glob in globs]
        for path, is_directory in all_.items():  # what is known of a directory is kept
            one_of_them = any(glob.match(path, directory=is_directory) for glob in each)
            assert together.match(path, directory=is_directory) == one_of_them
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("globs", "path", "message"),
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
def test_what_must_be_named_letter_by_letter(globs: list[str], path: str, message: str) -> None:
    assert Globs(globs).risk(path) == message


@pytest.mark.parametrize(
    "glob", ["", "/etc", "../x", "a/..", "a{b,c}", "~/x", "!x", "[a", "a/[", "[]"]
)
def test_a_glob_that_can_match_nothing_is_refused(glob: str) -> None:
    with pytest.raises(ConfigError, match="artifact: "):
        check(glob)


@pytest.mark.parametrize("glob", ["a", "**", "[[]x", "[]a]", "[!a]", "a{b}", "x~", "a/!b", "*.{}"])
def test_a_glob_that_can_match_is_taken(glob: str) -> None:
    check(glob)


def test_globs_have_bounds_in_length_and_number() -> None:
    check("a" * 512)
    with pytest.raises(ConfigError, match=r"artifact: 'aaaa.*'… has 513 characters, and 512 may"):
        check("a" * 513)
    check_all(["**/a*"] * 256)
    with pytest.raises(ConfigError, match="257 parts of the globs have wildcards"):
        check_all(["**/a*"] * 257)
    check_all(["a" * 64] * 1000)
    with pytest.raises(ConfigError, match="the globs have 65600 characters"):
        check_all(["a" * 64] * 1025)


def test_a_directory_is_held_against_globs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the worst that may be asked for, each name that the VM tells is looked at once."""
    steps = 0
    step = globs_._Glob.step

    def counted(*args: object) -> frozenset[int]:
        nonlocal steps
        steps += 1
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(globs_._Glob, "step", counted)
    globs = Globs(["/".join(["**", f"*{n}"] * 32) for n in range(8)])
    deep = "/".join("abcdefgh"[n % 8] for n in range(60))
    for name in range(1000):
        assert not globs.match(f"{deep}/{name}x", directory=False)
    assert steps == 60 * 8


def test_globs_that_take_too_long_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(globs_, "MATCH_SECONDS", 0.0)
    with pytest.raises(ConfigError, match="the globs take longer than 0 s"):
        [Globs(["**/a*"]).match(f"{n}/b", directory=False) for n in range(1000)]
