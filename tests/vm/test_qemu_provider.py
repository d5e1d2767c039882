"""Real VMs through the port: birth, what a look shows, and every way to die.

Most tests need no guest: a VM that has not booted yet dies in the same ways, and sooner."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from tests.vm.home import wait_until
from tests.vm.qemu_fixture import GENERATION, INSTALLATION, Machine, make_provider
from vmrunner.errors import BadOrder, NoCapacity
from vmrunner.model import Fate, Power, Resource, Spec
from vmrunner.providers.qemu import processes as host
from vmrunner.providers.qemu import state_dir
from vmrunner.providers.qemu.provider import QemuProvider

pytestmark = pytest.mark.vm


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[QemuProvider]:
    provider = make_provider(tmp_path)
    yield provider
    for resource in swept(provider):
        provider.delete([resource.ref], force=True)
    wait_until(lambda: not processes(provider), seconds=60, what="every process to be gone")
    assert not list(provider.state.instances.iterdir())


def swept(provider: QemuProvider) -> list[Resource]:
    return [resource for page in provider.sweep() for resource in page.resources]


def processes(provider: QemuProvider) -> dict[int, str]:
    """Every process of the provider's VMs: pid → command."""
    mark = host.MARK + provider._mark.removeprefix(host.MARK)
    found = {}
    for process_id, _ in host.marked(mark):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            text = (
                Path(f"/proc/{process_id.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            )
            found[process_id.pid] = text
    return found


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def qemu_of(provider: QemuProvider) -> int:
    (pid,) = (pid for pid, text in processes(provider).items() if "qemu-system" in text[:40])
    return pid


def test_a_vm_boots_is_ours_alone_and_may_switch_off(
    provider: QemuProvider, tmp_path: Path
) -> None:
    vm = Machine.order_one(provider, tmp_path)
    began = time.monotonic()
    ref = provider.create(vm.order)
    accepted = time.monotonic() - began
    assert accepted < 5, "create waits for the keeper, not for a boot"
    assert provider.create(vm.order) == ref
    assert create_elsewhere(vm) == ref.id
    assert len([text for text in processes(provider).values() if "qemu-system" in text[:40]]) == 1

    # QEMU has no privilege, no capability, a system call filter, and the engine's secrets nowhere.
    seen = status(qemu_of(provider))
    assert seen["CapEff"].strip("0") == seen["CapBnd"].strip("0") == ""
    assert seen["NoNewPrivs"] == "1"
    assert seen["Seccomp"] == "2"
    if os.geteuid() == 0:
        assert set(seen["Uid"].split()).isdisjoint({"0", "65534"})
        assert seen["Groups"].strip() == ""

    # A sweep needs neither a ledger nor the files.
    (resource,) = swept(provider)
    assert resource.tag("generation") == GENERATION
    (vm.home / state_dir.TAGS).write_text('{"vmrunner:insta')
    (resource,) = swept(provider)
    assert (resource.tag("installation"), resource.instance) == (INSTALLATION, vm.order.instance)
    assert resource.expires_at == int(vm.order.deadline)
    assert resource.role is vm.order.role

    vm.wait_booted()
    booted = time.monotonic() - began
    print(f"create {accepted * 1000:.0f} ms, boot to SSH {booted:.1f} s")
    guest = vm.ssh(
        "systemctl is-active vmrunner-deadline.timer vmrunner-deadline-forced.timer;"
        "cloud-init status; df --output=size -B1 / | tail -1;"
        "grep -c 169.254.169.254 /var/log/cloud-init.log"
    )
    first, forced, cloud_init, size, networks = guest.stdout.split("\n")[:5]
    assert (first, forced) == ("active", "active"), guest
    assert cloud_init == "status: done"
    assert int(size) > 0.94 * vm.order.offer.disk
    assert networks == "0", "it has its seed, and no metadata service to ask"
    assert len(provider.console(ref)) > 50

    vm.ssh("systemctl poweroff --no-block")
    dead = vm.wait_dead(60)
    assert dead.self_ended
    assert swept(provider) == []
    assert provider.create(vm.order) == ref, "the same order is the same VM, which is dead"
    wait_until(lambda: not processes(provider), seconds=60, what="the keeper to leave")


def create_elsewhere(vm: Machine) -> str:
    """The identical order, from a process that knows nothing but the order."""
    program = dedent(
        """
        import pickle, sys
        options, order = pickle.load(sys.stdin.buffer)
        from vmrunner.providers.qemu.provider import QemuProvider
        print(QemuProvider(options).create(order).id)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps((vm.provider.options, vm.order)),
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout.decode().strip()


def test_no_survivor_when_only_the_wall_clock_is_left(
    provider: QemuProvider, tmp_path: Path
) -> None:
    """The process that ordered it is gone; the VM ends at E, with all that it had."""
    vm = Machine.order_one(provider, tmp_path, ttl=8)
    create_elsewhere(vm)
    assert processes(provider)
    dead = vm.wait_dead(14)
    late = time.time() - vm.order.deadline
    assert 0 <= late < 3
    assert dead.detail == "its deadline passed"
    assert not dead.self_ended
    wait_until(lambda: not processes(provider), seconds=60, what="the keeper to leave")


def test_a_killed_keeper_takes_its_vm_along_for_good(
    provider: QemuProvider, tmp_path: Path
) -> None:
    vm = Machine.order_one(provider, tmp_path)
    ref = provider.create(vm.order)
    keeper = host.parse((state_dir.read_json(vm.home / state_dir.KEEPER) or {})["keeper"])
    assert keeper is not None
    assert os.getsid(keeper.pid) == keeper.pid, "a session of its own"
    assert host.send(keeper, signal.SIGKILL)
    wait_until(lambda: not processes(provider), seconds=60, what="QEMU to die")
    seen = vm.look()
    assert seen is not None
    assert seen.power is Power.STOPPED
    assert provider.create(vm.order) == ref
    assert processes(provider) == {}
    assert [resource.power for resource in swept(provider)] == [Power.STOPPED]
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    vm.wait_dead(2)


@pytest.mark.parametrize("force", [False, True])
def test_delete_ends_it_and_again_is_success(
    provider: QemuProvider, tmp_path: Path, force: bool
) -> None:
    vm = Machine.order_one(provider, tmp_path)
    ref = provider.create(vm.order)
    stranger = ref._replace(id="vm-nobody")
    outcomes = provider.delete([stranger, ref], force=force)
    assert outcomes[stranger].fate is Fate.MISSING
    assert outcomes[ref].fate is Fate.ACCEPTED
    dead = vm.wait_dead(3)
    assert not dead.self_ended
    assert provider.delete([ref])[ref].fate is Fate.MISSING
    assert swept(provider) == []


def test_a_vm_whose_directory_is_lost_is_swept_and_killed(
    provider: QemuProvider, tmp_path: Path
) -> None:
    vm = Machine.order_one(provider, tmp_path)
    ref = provider.create(vm.order)
    shutil.rmtree(vm.home)
    (resource,) = swept(provider)
    assert resource.ref == ref
    assert resource.expires_at == int(vm.order.deadline)
    seen = vm.look()
    assert seen is not None
    assert seen.power is Power.RUNNING
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    wait_until(lambda: not processes(provider), seconds=60, what="its processes to be gone")
    assert swept(provider) == []


def test_many_creators_of_one_order_make_one_vm(provider: QemuProvider, tmp_path: Path) -> None:
    vm = Machine.order_one(provider, tmp_path)
    with ThreadPoolExecutor(6) as pool:
        refs = set(pool.map(provider.create, [vm.order] * 6))
    assert refs == {vm.ref}
    wait_until(lambda: vm.home.joinpath(state_dir.CONSOLE).exists(), seconds=60, what="the keeper")
    assert sum("qemu-system" in text[:40] for text in processes(provider).values()) == 1


def test_impossible_orders_are_refused_and_leave_nothing(
    provider: QemuProvider, tmp_path: Path
) -> None:
    vm = Machine.order_one(provider, tmp_path)
    huge = dataclasses.replace(vm.order.offer, disk=1 << 50)
    with pytest.raises(NoCapacity, match="disk"):
        provider.create(dataclasses.replace(vm.order, offer=huge))
    with pytest.raises(BadOrder, match="deadline"):
        provider.create(dataclasses.replace(vm.order, deadline=time.time() - 1))
    broken = tmp_path / "cache"
    shutil.copytree(provider.options.cache_dir / "images", broken / "images", copy_function=os.link)
    for disk in broken.glob("images/*/disk.qcow2"):
        disk.unlink()
        disk.write_bytes(b"short")
    with pytest.raises(BadOrder, match="damaged"):
        make_provider(tmp_path / "other", cache=broken).offers(Spec())
    assert not list(provider.state.instances.iterdir())
    assert vm.look() is None


def test_check_finds_this_host_fit(provider: QemuProvider) -> None:
    errors = [finding for finding in provider.check() if finding.level == "error"]
    assert errors == []
    assert re.match(r"QEMU \d+", next(f.message for f in provider.check() if "qemu" in f.check))
