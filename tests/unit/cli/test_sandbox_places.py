"""Places of `vmrunner sandbox cp`."""

from __future__ import annotations

import pytest

from vmrunner.cli.commands.sandbox import _parted


@pytest.mark.parametrize(
    ("place", "parted"),
    [
        ("b-1:/work/x", ("b-1", "/work/x")),
        ("b-1:", ("b-1", "/work")),
        ("b-1:a:b", ("b-1", "a:b")),
        ("./a:b", ("", "./a:b")),
        ("/tmp/a:b", ("", "/tmp/a:b")),
        ("a", ("", "a")),
    ],
)
def test_a_colon_after_a_slash_names_no_sandbox(place: str, parted: tuple[str, str]) -> None:
    assert _parted(place) == parted
