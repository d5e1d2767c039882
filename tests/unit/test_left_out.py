"""Tests that an ordinary user cannot run are left out, and named."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests import conftest


def item(*markers: str) -> Any:
    return SimpleNamespace(
        nodeid="a", get_closest_marker=lambda name: name in markers, add_marker=lambda _: None
    )


@pytest.mark.parametrize("user", [0, 1000])
def test_what_needs_root_is_left_to_root(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    apart: list[Any] = []
    lines: list[str] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: apart.extend(items))
    config, items = SimpleNamespace(hook=hook), [item(), item("root"), item("vm")]
    both = len(items)
    conftest.pytest_collection_modifyitems(cast(pytest.Config, config), items)
    assert (len(items), len(apart)) == ((both, 0) if user == 0 else (both - 1, 1))
    reporter = SimpleNamespace(stats={}, write_line=lines.append)
    conftest.pytest_terminal_summary(cast(pytest.TerminalReporter, reporter))
    assert [line.partition(":")[0] for line in lines] == (
        [] if user == 0 else ["not run, for they need root"]
    )
