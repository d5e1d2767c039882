"""What a local VM used, as its host sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.lib import process
from vmrunner.model import HostUsage
from vmrunner.providers.qemu import processes, state_dir, usage
from vmrunner.providers.qemu.state_dir import InstanceDir, StateDir

MARK = "vmrunner=0123="


@pytest.fixture
def home(tmp_path: Path) -> InstanceDir:
    state = StateDir(tmp_path)
    state.prepare()
    home = InstanceDir(state.instances / "a_vm-1_2000000000")
    home.path.mkdir()
    (home.path / state_dir.OVERLAY).write_bytes(b"x" * 8192)
    return home


def used(home: InstanceDir, instance: str = "vm-1") -> HostUsage | None:
    return usage.used(StateDir(home.path.parent.parent), MARK, instance)


def test_a_control_group_tells_the_cpu_time(home: InstanceDir, tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    state_dir.write_json(home.path / state_dir.KEEPER, {state_dir.GROUP: str(group)})
    host_usage = used(home)
    assert host_usage is not None
    assert host_usage.cpu_seconds == 2.5
    assert host_usage.disk is not None
    assert host_usage.disk >= 8192


def test_without_a_group_its_processes_tell(
    home: InstanceDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dir.write_json(home.path / state_dir.KEEPER, {state_dir.GROUP: None})
    ours = process.current()
    marked = [(ours, home.path.name), (ours, "a_vm-2_2000000000")]
    monkeypatch.setattr(processes, "marked", lambda _: iter(marked))
    host_usage = used(home)
    assert host_usage is not None
    assert host_usage.cpu_seconds is not None
    assert host_usage.cpu_seconds > 0


def test_of_a_vm_that_is_gone_nothing_is_known(home: InstanceDir) -> None:
    assert used(home, "vm-2") is None
    assert used(home) == HostUsage(cpu_seconds=None, disk=8192)
