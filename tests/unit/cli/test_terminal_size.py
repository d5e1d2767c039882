"""The size of a terminal, as a remote command is told it."""

from __future__ import annotations

import os
import termios

import pytest

from vmrunner.cli import remote_command


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (30, 100)])
def test_a_terminal_without_a_size_is_of_the_usual(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gave one to those of `script` and of CI systems."""
    ours, theirs = os.openpty()
    try:
        termios.tcsetwinsize(theirs, (rows, columns))
        monkeypatch.setattr(remote_command, "_OUTPUT", theirs)
        assert remote_command._size() == (columns or 80, rows or 24)
    finally:
        os.close(ours)
        os.close(theirs)
