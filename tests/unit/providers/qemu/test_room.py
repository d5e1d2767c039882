"""Whether this host holds one more VM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vmrunner.errors import NoCapacity
from vmrunner.lib import process
from vmrunner.model import Level, Network, Offer, Order, Process, Role
from vmrunner.providers.qemu import doctor, launch_plan, processes, state_dir, sweep
from vmrunner.providers.qemu.command_line import QemuFd
from vmrunner.providers.qemu.options import GiB, QemuOptions
from vmrunner.providers.qemu.provider import QemuProvider
from vmrunner.providers.qemu.state_dir import DirName

INSTALLATION = "6f1c0000-0000-4000-8000-000000000000"


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QemuProvider:
    """On a host with 6 GiB to give."""
    monkeypatch.setattr(doctor, "memory", {"MemAvailable": 5 * GiB, "SwapFree": GiB}.__getitem__)
    return QemuProvider(
        QemuOptions(
            name="local",
            state_dir=tmp_path / "state",
            cache_dir=tmp_path / "cache",
            installation=INSTALLATION,
        )
    )


def order(provider: QemuProvider, memory: int) -> Order:
    offer = Offer(
        scope=provider.scope, machine_type="", place="", cpus=1, memory=memory, disk=0, image=""
    )
    return Order(
        instance="vm-new",
        build="b-1",
        installation=INSTALLATION,
        generation="g",
        role=Role.BUILD,
        offer=offer,
        deadline=2e9,
        user_data=b"",
        network=Network.NONE,
    )


def placed(provider: QemuProvider, instance: str, memory: int) -> str:
    """A VM that has its directory; returns the name in its processes' command lines."""
    name = DirName(INSTALLATION, instance, 2_000_000_000)
    place = provider.state.instances / str(name)
    place.mkdir()
    state_dir.write_json(place / state_dir.PLAN, {"disk": 0, "memory": memory})
    return str(name)


def test_untouched_guest_memory_counts_as_used(
    provider: QemuProvider,
) -> None:
    provider._room(order(provider, 6 * GiB))
    placed(provider, "vm-1", 2 * GiB)
    provider._room(order(provider, 4 * GiB))
    placed(provider, "vm-2", 2 * GiB)
    provider._room(order(provider, 2 * GiB))
    with pytest.raises(NoCapacity, match="memory: 3072 MiB asked, 2048 MiB") as caught:
        provider._room(order(provider, 3 * GiB))
    assert caught.value.hint


def test_memory_a_vm_has_touched_counts_once(
    provider: QemuProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = placed(provider, "vm-1", 2 * GiB)
    me = process.current()
    shown = processes.resident(me.pid)
    assert 4 << 20 < shown < 2 * GiB, "this process holds some memory"
    small = replace(me, pid=1 << 30)  # a helper of that VM that has ended meanwhile

    def marked(mark: str) -> Iterator[tuple[Process, str]]:
        assert mark == sweep.mark(provider.state)
        yield from [(small, name), (me, name), (me, "another's")]

    monkeypatch.setattr(processes, "marked", marked)
    provider._room(order(provider, 4 * GiB + shown // 2))
    placed(provider, "vm-2", 6 * GiB)
    with pytest.raises(NoCapacity, match="memory: 1024 MiB asked, 0 MiB"):
        provider._room(order(provider, GiB))


def test_what_a_template_may_still_take_counts_too(tmp_path: Path) -> None:
    """Its memory and its disk are files elsewhere."""
    files = [
        (int(QemuFd.OVERLAY), str(tmp_path / "disk")),
        (int(QemuFd.RAM), str(tmp_path / "ram")),
    ]
    for _, path in files:
        Path(path).touch()
    made = {"disk": GiB, "memory": 2 * GiB, "files": files}
    most = launch_plan.growth(GiB) + 2 * GiB
    assert doctor.to_come(tmp_path / "home", made) == most
    (tmp_path / "ram").write_bytes(bytes(1 << 20))
    assert doctor.to_come(tmp_path / "home", made) == most - (1 << 20)
    assert doctor.to_come(tmp_path / "home", {**made, "files": []}) == 0


@pytest.mark.parametrize("missing", ["nft", "pasta"])
def test_the_doctor_says_what_an_allow_list_lacks(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(launch_plan, "find", lambda name: f"/usr/bin/{name}")
    assert doctor._allow_list().level is Level.OK
    monkeypatch.setattr(launch_plan, "find", lambda name: None if name == missing else name)
    found = doctor._allow_list()
    assert (found.level, found.fix) == (Level.ERROR, f"apt install {launch_plan.package(missing)}")
    assert missing in found.message
