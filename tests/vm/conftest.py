"""Real VMs: each test has a home of its own and must leave nothing behind in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.home import Home

#: A file is one process's: the longest ones first, so that none is waited for alone.
LONGEST = (
    *("test_session", "test_local_azure", "test_local_ec2", "test_local_gce", "test_end_to_end"),
    *("test_scenario", "test_image_build", "test_sandboxes", "test_qemu_wall", "test_pools"),
    *("test_terminal", "test_gitlab", "test_templates", "test_allow_list", "test_take_over"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        name = item.path.stem
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path / "home")
    yield home
    if home.data.exists():
        home.assert_nothing_left()
