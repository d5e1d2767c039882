"""A build in a VM of a plain Debian or Ubuntu, which installs what it needs as it boots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_sessions import Recorder, Running, make_job
from tests.vm import stock
from tests.vm.home import wait_until
from tests.vm.qemu_fixture import GiB, Machine, make_provider
from tests.vm.test_session import FORGET
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.model import Address, Network, Reason, Result
from vmrunner.session import End
from vmrunner.session.session import Session
from vmrunner.session.ssh import client

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3000)]

#: The VM's own shell as a container image: no registry is in reach.
IMPORT = (
    "tar --create --dereference --absolute-names /bin/sh /bin/cat /bin/grep "
    "$(ldd /bin/sh /bin/cat /bin/grep | grep -o '/lib[^ :]*' | sort -u) "
    "| docker import - shell:1"
)
#: What holds for every build VM, looked at from inside.
PROMISES = {
    "systemctl list-timers --all": "vmrunner-deadline",
    "sshd -T": "passwordauthentication no\n",
    "sshd -T -C user=root": "maxstartups 100:30:200\n",
    "nft list ruleset": "169.254.169.254",
    "docker info": "Logging Driver: local",
    "cat /etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 ",
}


@pytest.fixture(params=[stock.DEBIAN, stock.UBUNTU], ids=lambda of: of.suite)
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    image = stock.build(tmp_path / "cache", request.param)
    options = {"cache": tmp_path / "cache", "image": image, "memory": 2 * GiB, "disk": 4 * GiB}
    provider = make_provider(tmp_path, **options)
    machine = Machine.order_one(provider, tmp_path, ttl=2700, stock=True)
    provider.create(machine.order)
    yield machine
    provider.delete([machine.ref])
    machine.wait_dead(120)


def test_a_stock_image_becomes_a_build_vm(machine: Machine, tmp_path: Path) -> None:
    seen = wait_until(machine.look, seconds=60, what="an address")
    record = Recorder()

    def run(*scripts: str) -> End:
        job = make_job(
            seen.address or Address("", 0),
            machine.access,
            tmp_path / "artifacts",
            *scripts,
            container="shell:1",
            bootstrap=True,
            network=Network.NONE,
            boot_seconds=600,
            channel=UNIX_SOCKET,
            deadline=2400,
        )
        return Running(Session(job, record.at())).wait(1500)

    first = run("true")
    assert (first.reason, first.result) == (Reason.IMAGE, Result.ERROR), first
    assert "it has: none" in first.message
    assert "bootstrapped" in record.kinds()

    dialer = client.Dialer(machine.access, channel=UNIX_SOCKET)
    connection = dialer.connect(seen.address, timeout=60)
    done = connection.run(IMPORT, timeout=120)
    assert done.exit_code == 0, done
    connection.run(FORGET, timeout=120)
    connection.close()
    record = Recorder()
    second = run("echo built; exit 7")
    assert (second.reason, second.exit_code) == (Reason.EXIT_CODE, 7), second
    assert bytes(record.log_bytes) == b"built\n"
    for command, promised in PROMISES.items():
        assert promised in machine.ssh(command).stdout, command
