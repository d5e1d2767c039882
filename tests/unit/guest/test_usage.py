"""Figures of a container, read from its cgroup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmrunner.guest import docker
from vmrunner.guest.cgroup import Cgroup
from vmrunner.guest.state import Place

FILES = {
    "memory.peak": "7340032\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n",
    "io.stat": "254:0 rbytes=4096 wbytes=8192 rios=1\n254:16 \n7:0 rbytes=1 wbytes=2 rios=1\n",
}
FIGURES = {"memory_peak": 7340032, "cpu_seconds": 1.5, "disk_read": 4097, "disk_written": 8194}


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(Cgroup, "_path", lambda _: str(tmp_path))
    monkeypatch.setattr(Cgroup, "pid", lambda _: os.getpid())
    return tmp_path


def test_a_containers_figures_are_read(group: Path) -> None:
    usage = Cgroup(Place())
    usage.look()
    assert usage.figures.keys() == {*FIGURES, "network_received", "network_sent"}
    assert usage.figures.items() >= FIGURES.items()


def test_a_figure_that_cannot_be_read_is_unknown(group: Path) -> None:
    (group / "memory.peak").unlink()
    (group / "cpu.stat").write_text("nonsense\n")
    usage = Cgroup(Place())
    usage.look()
    assert {"memory_peak", "cpu_seconds"}.isdisjoint(usage.figures)
    assert usage.figures["disk_read"] == 4097


def test_the_last_figures_outlive_the_container(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = Cgroup(Place())
    usage.look()

    def gone(_: Cgroup) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Cgroup, "_path", gone)
    monkeypatch.setattr(Cgroup, "pid", gone)
    usage.look()
    assert usage.figures.items() >= FIGURES.items()


def test_without_a_container_nothing_is_known() -> None:
    """Such as where Docker cannot be asked."""
    usage = Cgroup(Place())
    usage.look()
    assert usage.figures == {}


def test_docker_is_not_asked_for_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the processor of a small VM before a first line had left."""
    monkeypatch.setattr(docker, "inspect", lambda: pytest.fail("asked"))
    with pytest.raises(FileNotFoundError, match="no cgroup of its own"):
        Cgroup(Place(), "no-container", os.getpid()).read("cpu.stat")
