"""What a host gives, against `max_instances`."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from vmrunner.services import host_limits


def test_too_few_of_anything_is_told_with_its_fix() -> None:
    given = {"RLIMIT_NOFILE": 256, "pids.max": 300, "RLIMIT_NPROC": None}
    files, tasks = host_limits.findings(100, local=False, given=given)
    assert "RLIMIT_NOFILE is 256 here" in files.message
    assert "LimitNOFILE=" in files.fix
    assert "pids.max is 300 here; max_instances = 100 may need 500" in tasks.message
    assert "TasksMax=" in tasks.fix


def test_local_vms_need_processes_of_their_own() -> None:
    given: dict[str, int | None] = {"pids.max": 2000}
    assert not list(host_limits.findings(100, local=False, given=given))
    assert list(host_limits.findings(100, local=True, given=given))


def test_the_smallest_group_above_counts(tmp_path: Path) -> None:
    inner = tmp_path / "machine.slice" / "a.service"
    inner.mkdir(parents=True)
    (inner / "pids.max").write_text("max\n")
    (inner.parent / "pids.max").write_text("1024\n")
    given = host_limits.of_this_process(tmp_path, "0::/machine.slice/a.service\n")
    assert given["pids.max"] == 1024
    assert host_limits.of_this_process(tmp_path, "1:name=x:/\n")["pids.max"] is None


def test_no_limit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert host_limits.of_this_process()["RLIMIT_NOFILE"] is None


def test_the_unit_suits_the_default() -> None:
    unit = Path(__file__).parents[3] / "deploy" / "systemd" / "vmrunner.service"
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    given: dict[str, int | None] = {
        "RLIMIT_NOFILE": int(settings["LimitNOFILE"]), "pids.max": int(settings["TasksMax"])
    }  # fmt: skip
    assert not list(host_limits.findings(20, local=True, given=given))
