"""Where a VM gets a control group of its own, on a tree that stands in for the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.providers.qemu import cgroup


def tree(root: Path, path: str, controllers: str = "cpu memory pids") -> Path:
    """A tree with this path in it, below which these controllers are switched on."""
    directory = root / path
    directory.mkdir(parents=True)
    (directory / "cgroup.subtree_control").write_text(controllers)
    return directory


@pytest.mark.parametrize(
    ("parent", "own"),
    [
        ("user.slice/user-0.slice", "session-3.scope"),
        ("user.slice/user-7.slice/user@7.service/app.slice", "run-1.scope"),
        ("system.slice/vmrunner.service", "main"),
    ],
)
def test_groups_are_beside_a_scope_or_below_a_service(
    tmp_path: Path, parent: str, own: str
) -> None:
    path = tree(tmp_path, parent)
    assert cgroup.place(tmp_path, f"1:name=systemd:/x\n0::/{parent}/{own}\n") == path


@pytest.mark.parametrize(
    "own",
    [
        "0::/\n",  # a container's, or a host without systemd
        "0::/system.slice/vmrunner.service\n",  # beside it, no limit of the service would count
        "0::/user.slice/user-7.slice/bash\n",
        "0::/../../session-3.scope\n",  # outside of what this namespace shows
        "4:memory:/a.scope\n",  # version 1
        "",
    ],
)
def test_nowhere_else(tmp_path: Path, own: str) -> None:
    for path in ("", "system.slice", "user.slice/user-7.slice"):
        tree(tmp_path / "x", path) if not path else tree(tmp_path, path)
    assert cgroup.place(tmp_path, own) is None


def test_not_beside_a_scope_that_has_a_limit(tmp_path: Path) -> None:
    scope = tree(tmp_path, "system.slice") / "run-1.scope"
    scope.mkdir()
    for limit, found in (("max\n", tmp_path / "system.slice"), ("8589934592\n", None)):
        (scope / "memory.max").write_text(limit)
        assert cgroup.place(tmp_path, "0::/system.slice/run-1.scope\n") == found


def test_not_where_a_controller_is_missing(tmp_path: Path) -> None:
    tree(tmp_path, "user.slice/user-0.slice", "cpu pids")
    assert cgroup.place(tmp_path, "0::/user.slice/user-0.slice/session-3.scope\n") is None


def test_a_group_bounds_its_vm_and_empty_ones_go(tmp_path: Path) -> None:
    leftover = tmp_path / "vmrunner-left"
    leftover.mkdir()
    used = tmp_path / "vmrunner-used"
    (used / "child").mkdir(parents=True)  # as a group with a process: it cannot be removed
    with cgroup.made(tmp_path, "vm-1", memory=7, processes=9) as group:
        assert group is not None
        cgroup.join(group)
    found = {file.name: file.read_text() for file in group.iterdir()}
    assert found == {
        "memory.max": "7",
        "memory.oom.group": "1",
        "pids.max": "9",
        "cgroup.procs": "0",
    }
    assert not leftover.exists()
    assert used.exists()


def test_none_where_there_is_no_place() -> None:
    with cgroup.made(None, "vm-1", memory=7, processes=9) as group:
        assert group is None
