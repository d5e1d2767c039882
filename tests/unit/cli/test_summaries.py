"""The help of all commands says of each what its own help says first."""

from __future__ import annotations

from vmrunner.cli import _COMMANDS, _command
from vmrunner.cli.summaries import SUMMARIES


def test_each_summary_is_the_commands_own() -> None:
    commands = _command([]).commands
    assert list(SUMMARIES) == list(_COMMANDS)
    for name, text in SUMMARIES.items():
        assert commands[name].get_short_help_str(1 << 20) == text, name


def test_each_summary_fits_a_line_of_80_columns() -> None:
    assert {name: text for name, text in SUMMARIES.items() if len(text) > 66} == {}
