"""Command lines that speak for a build or a command, whose code must be told from ours."""

from __future__ import annotations

import pytest

from vmrunner.cli import exit_codes


@pytest.mark.parametrize(
    ("line", "speaks"),
    [
        ("sandbox run b-1 -- true", True),
        ("sandbox run --cwd /tmp b-1 -- shell", True),
        ("sandbox shell b-1", True),
        ("sandbox cp run shell", False),
        ("sandbox rm run", False),
        ("sandbox", False),
        ("ssh b-1 -- true", True),
        ("ps -- run", False),
    ],
)
def test_who_speaks_for_a_command_says_125(line: str, speaks: bool) -> None:
    assert exit_codes.remote(line.split()) is speaks
