"""Real VMs: each test has a home of its own and must leave nothing behind in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path / "home")
    yield home
    if home.data.exists():
        home.assert_nothing_left()
