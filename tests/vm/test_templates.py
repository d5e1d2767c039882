"""Clones of one template: each is itself, none changes it, and what does not resume boots."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_sessions import Recorder, Running, make_job
from tests.vm.home import Home, processes_with, wait_until
from tests.vm.qemu_fixture import SHAPE, Machine, cache_dir, make_provider, template_of
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.lib.file_bytes import digest_of
from vmrunner.model import Network, Result, Start
from vmrunner.providers.qemu import templates
from vmrunner.providers.qemu.command_line import KERNEL_HEAD, QemuFd
from vmrunner.providers.qemu.provider import QemuProvider
from vmrunner.session.session import Session

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]


#: What must differ between clones, or be this clone's own.
IDENTITY = {
    "random": "head -c 32 /dev/urandom | base64",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "machine id": "cat /etc/machine-id",
    "host name": "hostname",
    "host key": "cat /etc/ssh/ssh_host_ed25519_key",
    "user key": "cat /root/.ssh/authorized_keys",
    "own end": "cat /run/vmrunner/deadline",
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> QemuProvider:
    return make_provider(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="module")
def template(provider: QemuProvider) -> templates.Template:
    return template_of(provider)


@pytest.fixture(scope="module")
def clones(
    provider: QemuProvider, template: templates.Template, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Machine]]:
    made = []
    for name in ("first", "second"):
        machine = Machine.order_one(
            provider, tmp_path_factory.mktemp(name), ttl=1200, shape=SHAPE, network=Network.NONE
        )
        provider.create(machine.order)
        made.append(machine)
    for machine in made:
        assert machine.wait_started() is Start.RESUMED
        machine.wait_booted()
    yield made[0], made[1]
    for machine in made:
        provider.delete([machine.ref], force=True)


@pytest.mark.parametrize("what", IDENTITY)
def test_what_tells_clones_apart_differs(clones: tuple[Machine, Machine], what: str) -> None:
    first, second = (machine.ssh(IDENTITY[what]).stdout for machine in clones)
    assert first.strip()
    assert first != second


def test_clones_have_the_keys_and_names_of_their_orders(clones: tuple[Machine, Machine]) -> None:
    for machine in clones:
        assert machine.order.identity is not None
        assert machine.ssh("hostname").stdout.strip() == machine.order.instance
        assert machine.ssh("cat /root/.ssh/authorized_keys").stdout.strip() == (
            machine.order.identity.user_key.strip()
        )
        assert f" {machine.order.instance}" in machine.ssh("cat /etc/hosts").stdout
        # (the template's clock stood still for as long as it lay there)
        assert abs(float(machine.ssh("date +%s.%N").stdout) - time.time()) < 20
        at, _ = json.loads(machine.ssh("cat /run/vmrunner/deadline").stdout)
        assert at == machine.order.deadline
        assert machine.ssh("cat /var/lib/dbus/machine-id || cat /etc/machine-id").stdout == (
            machine.ssh("cat /etc/machine-id").stdout
        )


def test_sshd_draws_its_randomness_after_the_clone_is_itself(
    clones: tuple[Machine, Machine],
) -> None:
    """What it drew in a template all clones would share."""
    began = '$(date +%s) - $(ps -o etimes= -p "$(pgrep -o -x sshd)")'
    for machine in clones:  # (whole seconds, three of them)
        late = machine.ssh(f"echo $(({began} - $(stat -c %Y /etc/ssh/ssh_host_ed25519_key)))")
        assert int(late.stdout) > -3, late


def test_a_clones_keys_open_no_other_clone(clones: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = clones
    thief = Machine(second.provider, second.order, first.access, tmp_path)
    assert "Host key verification failed" in thief.ssh("true").stderr
    (tmp_path / "known_hosts").write_text(f"vm {second.access.host_public}\n")
    assert "Permission denied" in thief.ssh("true").stderr


def test_nothing_of_the_template_is_left_to_run(clones: tuple[Machine, Machine]) -> None:
    first, _ = clones
    timers = first.ssh("systemctl list-timers --no-legend").stdout
    assert not timers.strip(), timers
    leftovers = first.ssh(
        "ls /var/lib/systemd/random-seed /var/lib/dhcp/*.leases 2>/dev/null"
    ).stdout
    assert not leftovers, leftovers


def test_a_template_holds_nothing_of_its_clones(
    clones: tuple[Machine, Machine], template: templates.Template
) -> None:
    secrets = []
    for machine in clones:
        assert machine.order.identity is not None
        private = "".join(machine.order.identity.host_key.splitlines()[1:-1])
        secrets += [
            machine.order.instance.encode(),
            machine.order.identity.user_key.split()[1].encode(),
            base64.b64decode(private)[-80:-16],
            private[60:120].encode(),
        ]
    for name in templates.FILES:
        assert not _found(template.directory / name, secrets)


def _found(path: Path, words: list[bytes]) -> list[bytes]:
    """Which of these bytes are in the file; holes are skipped."""
    found = []
    with path.open("rb") as file:
        size, at = path.stat().st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            before = b""
            file.seek(at)
            while at < end:
                data = file.read(min(16 << 20, end - at))
                at += len(data)
                found += [word for word in words if word in before + data]
                before = data[-256:]
    return found


def test_qemu_can_write_no_file_of_its_template(
    clones: tuple[Machine, Machine], template: templates.Template
) -> None:
    inodes = {(template.directory / name).stat().st_ino: name for name in templates.FILES}
    tried = set()
    for path in Path(f"/proc/{clones[0].qemu}/fd").iterdir():
        if (name := inodes.get(path.stat().st_ino)) is None:
            continue
        tried.add(name)
        with pytest.raises(OSError) as refused:
            os.close(os.open(path, os.O_RDWR))
        assert refused.value.errno in (errno.EROFS, errno.EACCES)
        with pytest.raises(OSError) as refused:
            path.chmod(0o666)  # through the descriptor, as QEMU would
        assert refused.value.errno in (errno.EROFS, errno.EPERM)
    assert tried >= {templates.RAM, templates.DISK}


def test_the_kernel_hears_that_it_is_another_vm(clones: tuple[Machine, Machine]) -> None:
    """By vmgenid, before anything of ours runs in it."""
    for machine in clones:
        done = machine.ssh("dmesg | tail -n 20")
        assert "reseeded due to virtual machine fork" in done.stdout, done


def test_a_hostile_clone_changes_nothing_of_its_template(
    clones: tuple[Machine, Machine], template: templates.Template
) -> None:
    first, second = clones
    before = {name: digest_of(template.directory / name) for name in templates.FILES}
    second.ssh("echo mine >/root/mark; sync")
    first.ssh(
        "mount -o remount,size=700m /dev/shm; head -c 500M /dev/urandom >/dev/shm/a;"
        "dd if=/dev/zero of=/dev/vda bs=1M count=256 oflag=direct; echo 3 >/proc/sys/vm/drop_caches"
    )
    assert {name: digest_of(template.directory / name) for name in templates.FILES} == before
    assert second.ssh(
        "cat /root/mark; dd if=/dev/vda bs=1M count=64 | sha256sum"
    ).stdout.startswith("mine")


def test_the_third_clone_takes_little_memory_of_its_own(
    clones: tuple[Machine, Machine], tmp_path: Path
) -> None:
    assert len(clones) == 2
    provider = make_provider(tmp_path)
    third = Machine.order_one(provider, tmp_path, ttl=600, shape=SHAPE, network=Network.NONE)
    provider.create(third.order)
    assert third.wait_started() is Start.RESUMED
    third.wait_booted()
    lines = Path(f"/proc/{third.qemu}/smaps_rollup").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    # (QEMU itself takes half of it: translated code)
    assert kib["Pss"] < third.order.offer.memory // 1024 // 2, kib
    kernel = Path(f"/proc/{third.qemu}/fd/{QemuFd.KERNEL:d}")
    assert kernel.stat().st_size == KERNEL_HEAD, "QEMU holds all of it in each clone"
    provider.delete([third.ref], force=True)
    third.wait_dead(60)


@pytest.mark.usefixtures("template")
def test_nothing_starts_python_runc_or_docker_before_the_first_output(tmp_path: Path) -> None:
    """In two clones, whose containers share nothing that tells clones apart."""
    seen = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        seen.append(_first_step(tmp_path / name))
    first, second = seen
    assert first["random"] != second["random"]
    assert first["boot"] != second["boot"]


#: The same check-list where a build sees it: a container has no identity of its VM's.
FIRST_STEP = """echo hello
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "random $(head -c 32 /dev/urandom | base64)"
echo "clock $(date +%s.%N)"
echo "host $(cat /etc/hostname) $(hostname)"
echo "machine $(cat /etc/machine-id /var/lib/dbus/machine-id 2>/dev/null)"
echo "keys $(cat /etc/ssh/ssh_host_* /root/.ssh/* /run/vmrunner/* 2>/dev/null | base64 -w 0)"
echo "seed $(ls /var/lib/systemd/random-seed /var/lib/systemd/timers 2>/dev/null)"
"""


def _first_step(tmp_path: Path) -> dict[str, str]:
    """What the first step of a clone's build says of itself."""
    provider = make_provider(tmp_path)
    machine = Machine.order_one(provider, tmp_path, ttl=600, shape=SHAPE)
    provider.create(machine.order)
    assert machine.wait_started() is Start.RESUMED
    machine.wait_booted()
    programs = "$(readlink -f /usr/bin/python3) /usr/bin/docker $(command -v runc)"
    done = machine.ssh(f"for p in {programs}; do mount --bind /bin/false $p || exit 1; done")
    assert done.returncode == 0, done.stderr
    assert machine.ssh("python3 -c 'print(1)'").returncode == 1
    seen = machine.look()
    assert seen is not None
    assert seen.address is not None
    record = Recorder()
    job = make_job(
        seen.address,
        machine.access,
        tmp_path / "artifacts",
        FIRST_STEP,
        boot_seconds=60,
        channel=UNIX_SOCKET,
        network=Network.NONE,
    )
    end = Running(Session(job, record.at())).wait(120)
    first, *lines = bytes(record.log_bytes).decode().splitlines()
    assert (end.result, first) == (Result.SUCCESS, "hello")
    inside = {name: output for name, _, output in (line.partition(" ") for line in lines)}
    assert machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip() == inside["boot"]
    assert abs(float(inside["clock"]) - time.time()) < 60
    assert inside["host"] == "build build"
    assert machine.ssh("cat /etc/machine-id").stdout.strip() not in inside["machine"]
    assert (inside["keys"], inside["seed"]) == ("", "")
    provider.delete([machine.ref], force=True)
    machine.wait_dead(30)
    return inside


def broken(how: str, file: Path) -> None:
    """Damage that a clone meets when it starts."""
    if how == "cut":
        os.truncate(file, 64)
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
        file.write_bytes(data)


@pytest.mark.parametrize("how", [pytest.param("cut", marks=pytest.mark.long), "garbled"])
def test_a_clone_that_does_not_come_up_is_booted(
    template: templates.Template, tmp_path: Path, how: str
) -> None:
    cache = tmp_path / "cache"
    directory = cache / "templates" / template.key
    directory.mkdir(parents=True, mode=0o700)
    (cache / "images").symlink_to(cache_dir() / "images")
    (cache / "accel.json").write_bytes((cache_dir() / "accel.json").read_bytes())
    subprocess.run(
        ["cp", "-r", "--sparse=always", f"{template.directory}/.", directory], check=True
    )
    broken(how, directory / templates.STATE)
    manifest = json.loads((directory / templates.MANIFEST).read_text())
    manifest["sha256"][templates.STATE] = digest_of(directory / templates.STATE)
    manifest["sizes"][templates.STATE] = (directory / templates.STATE).stat().st_size
    (directory / templates.MANIFEST).write_text(json.dumps(manifest))
    provider = make_provider(tmp_path, cache=cache)
    machine = Machine.order_one(provider, tmp_path, ttl=900, shape=SHAPE)
    provider.create(machine.order)
    assert machine.wait_started() is Start.COLD
    machine.wait_booted()
    assert "not resumed" in provider.console(machine.ref)
    provider.delete([machine.ref], force=True)
    machine.wait_dead(60)
    shutil.rmtree(directory)


def test_a_killed_makers_vm_ends_by_one_reap(home: Home) -> None:
    """A size that nobody asked for: its template is not there."""

    def vm_ids() -> list[str]:
        return [str(vm["id"]) for vm in home.items("vm", "ls", "--cloud")]

    size = f"{600 + os.getpid() % 300}MiB"
    with home.start("image", "template", "--network", "none", "--memory", size) as maker:
        vms = wait_until(lambda: vm_ids() or maker.poll(), seconds=200, what="the template's VM")
        assert maker.poll() is None, maker.communicate()
        for line in processes_with(vms):
            if "qemu-system" in line.split()[1]:
                os.kill(int(line.split()[0]), signal.SIGSTOP)  # it would be frozen, and end so
        maker.kill()
    assert vm_ids() == vms
    [row] = home.instances()
    assert (row["id"], row["state"], row["build"], row["pool"]) == (*vms, "booting", None, None)
    assert home.run("audit", timeout=200).returncode == 0
    done = home.run("reap", timeout=200)
    assert vms[0].encode() in done.stdout, done
    [row] = home.instances()
    assert row["state"] == "gone"
    home.assert_nothing_left()
