"""Sessions in real VMs. What a build may do is tried in a clone for each; `make soak` tries it in a
VM that booted, too. That one is made to forget each build: booting one for each takes minutes under
emulation. That a VM runs one build only is tested elsewhere."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.fake_sessions import Recorder, Running, make_job
from tests.vm.home import wait_until
from tests.vm.qemu_fixture import SHAPE, Machine, make_provider, template_of
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import Address, ArtifactRule, Network, Reason, Result, Start, Step
from vmrunner.session import End
from vmrunner.session.ssh import client

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

FORGET = """
docker rm -f vmrunner-build; umount /run/vmrunner/spool /run/vmrunner/shown
find /run/vmrunner -mindepth 1 -not -type d -not -name socket -delete
rm -rf /var/lib/vmrunner/started /work; systemctl reset-failed; true
"""


class Vms(ABC):
    """Where builds run, and what the last one said."""

    NETWORK: ClassVar[Network] = Network.OPEN  # of their containers

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.record = Recorder()

    @abstractmethod
    def new(self) -> Machine:
        """A VM that knows of no build."""

    def start(self, *scripts: str, **options: Any) -> Running:
        from vmrunner.session.session import Session

        machine = self.new()
        self.record = Recorder()
        options = {"boot_seconds": 60, "network": self.NETWORK, "channel": UNIX_SOCKET} | options
        job = make_job(address_of(machine), machine.access, self.artifacts, *scripts, **options)
        return Running(Session(job, self.record.at()))

    def run(self, *scripts: str, **options: Any) -> End:
        return self.start(*scripts, **options).wait(300)

    @property
    def log(self) -> bytes:
        return bytes(self.record.log_bytes)


class Vm(Vms):
    """One that booted."""

    def __init__(self, machine: Machine, artifacts: Path) -> None:
        super().__init__(artifacts)
        self.machine = machine
        dialer = client.Dialer(machine.access, channel=UNIX_SOCKET)
        self.connection = dialer.connect(address_of(machine), timeout=300)

    def new(self) -> Machine:
        self.connection.run(FORGET, timeout=120)
        return self.machine


class Clones(Vms):
    """A clone of one template for each build."""

    NETWORK = Network.NONE

    def __init__(self, root: Path) -> None:
        super().__init__(root / "artifacts")
        self._root = root
        self._provider = make_provider(root)
        self._last: Machine | None = None
        template_of(self._provider)

    def new(self) -> Machine:
        self.end()
        self._last = Machine.order_one(self._provider, self._root, ttl=900, shape=SHAPE)
        self._provider.create(self._last.order)
        assert self._last.wait_started() is Start.RESUMED
        return self._last

    def end(self) -> None:
        if self._last is not None:
            self._provider.delete([self._last.ref], force=True)
            self._last.wait_dead(120)


def address_of(machine: Machine) -> Address:
    def address() -> Address | None:
        seen = machine.look()
        return seen.address if seen else None

    found: Address = wait_until(address, seconds=60, what="an address")
    return found


@contextmanager
def booted(root: Path, of: LocalImage | None = None) -> Iterator[Vm]:
    """A VM of this image, else of the default one, that waits for its first build."""
    which = {"cache": of.directory.parent.parent, "image": of.hash} if of else {}
    provider = make_provider(root, **which)
    machine = Machine.order_one(provider, root, ttl=3000)
    provider.create(machine.order)
    try:
        yield Vm(machine, root / "artifacts")
    finally:
        provider.delete([machine.ref])
        machine.wait_dead(120)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with booted(tmp_path_factory.mktemp("session")) as vm:
        yield vm


@pytest.fixture(params=["resumed", pytest.param("booted", marks=pytest.mark.long)])
def vms(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vms]:
    if request.param == "booted":
        yield request.getfixturevalue("vm")
        return
    clones = Clones(tmp_path)
    yield clones
    clones.end()


@pytest.mark.parametrize("vms", ["resumed", "booted"], indirect=True)
def test_a_build_in_a_real_container(vms: Vms, tmp_path: Path) -> None:
    """One build that does all that builds do, and looks at its walls."""
    big = os.urandom(3 << 20)
    source = tmp_path / "source.tar"
    with tarfile.open(source, "w") as tar:
        info = tarfile.TarInfo("data/big")
        info.size = len(big)
        tar.addfile(info, io.BytesIO(big))
    verdict = vms.run(
        "id -u; pwd; echo to-stderr >&2; printf 'byte \\377\\n'",
        "ls /proc | grep -c '^[0-9]*$'; cat /proc/self/mounts | grep -c vmrunner.*ro,",
        'echo "token $TOKEN"; [ "$(cat /run/secrets/TOKEN)" = "$TOKEN" ]',
        "mount -t tmpfs x /mnt 2>/dev/null || echo no-mount; mknod /tmp/n b 254 0 || echo no-node",
        "(while :; do sleep 1; done) & mkdir -p out/deep; cp data/big out/deep/; ln -s deep out/l",
        "chown 1234 out; exit 7",
        source=source,
        secrets={"TOKEN": b"s3cr3t-value-of-a-token"},
        rules=[ArtifactRule(glob="out", always=True), ArtifactRule(glob="data/*")],
    )
    assert (verdict.result, verdict.reason, verdict.exit_code) == (
        Result.FAILURE,
        Reason.EXIT_CODE,
        7,
    )
    lines = vms.log.split(b"\n")
    assert lines[:4] == [b"0", b"/work", b"to-stderr", b"byte \xff"]
    assert int(lines[4]) < 12  # its own processes only
    assert b"token ***" in vms.log
    assert b"no-mount" in vms.log
    assert b"no-node" in vms.log
    assert b"s3cr3t" not in vms.log
    assert (vms.artifacts / "out" / "deep" / "big").read_bytes() == big
    assert (vms.artifacts / "out" / "l").readlink() == Path("deep")
    assert not (vms.artifacts / "data").exists()


@pytest.mark.parametrize(
    ("script", "reason", "code"),
    [
        ("tail /dev/zero", Reason.OUT_OF_MEMORY, 137),
        ("sh -c 'tail /dev/zero' || exit 5", Reason.OUT_OF_MEMORY, 5),
        ("fallocate -l 100G big; echo x >small", Reason.DISK_FULL, 1),
        ("kill -SEGV $$", Reason.SIGNAL, 139),
    ],
)
def test_what_used_up_the_machine_is_named(
    vms: Vms, script: str, reason: Reason, code: int
) -> None:
    verdict = vms.run(script, timeout=240)
    assert (verdict.result, verdict.reason, verdict.exit_code) == (Result.FAILURE, reason, code)


def test_a_fork_bomb_does_not_silence_the_supervisor(vms: Vms) -> None:
    verdict = vms.run("echo begun; b() { b | b & }; b; while :; do sleep 1; done", timeout=10)
    assert verdict.result in (Result.FAILURE, Result.TIMEOUT)
    assert vms.log.startswith(b"begun\n")


def test_a_step_that_ignores_term_is_killed_at_its_timeout(vms: Vms) -> None:
    step = Step(run="trap '' TERM; echo begun; while :; do sleep 1; done", timeout=2)
    begun = time.monotonic()
    assert vms.run(steps=[step]).reason is Reason.STEP_TIMEOUT
    assert time.monotonic() - begun < 120
    assert vms.log.startswith(b"begun\n")


def test_cancel_gives_it_time_to_end_and_brings_artifacts(vms: Vms) -> None:
    running = vms.start(
        "trap 'echo caught; touch mark; exit 0' TERM; echo begun; sleep 300 & wait",
        rules=[ArtifactRule(glob="mark", always=True)],
    )
    wait_until(lambda: vms.log, seconds=120, what="its first line")
    running.session.stop(Reason.USER)
    end = running.wait(60)
    assert (end.result, end.reason) == (Result.CANCELLED, Reason.USER)
    assert b"caught" in vms.log
    assert (vms.artifacts / "mark").exists()


def test_a_log_past_its_cap_ends_with_its_end(vms: Vms) -> None:
    verdict = vms.run("yes 0123456789012345678901234567890123456789 | head -c 80000000; exit 3")
    assert verdict.exit_code == 3
    assert 60 << 20 < len(vms.log) <= 64 << 20
    assert b" bytes dropped\n" in vms.log[-300_000:]


def test_a_hostile_work_directory_writes_nothing_outside(vms: Vms) -> None:
    verdict = vms.run("ln -s / out; mkfifo pipe; echo x >z", rules=[ArtifactRule(glob="*")])
    assert (verdict.result, verdict.exit_code) == (Result.SUCCESS, 0)
    assert verdict.message == "artifacts: the link 'out' leads outside (and 1 more): left out"
    assert [path.name for path in vms.artifacts.iterdir()] == ["z"]
    verdict = vms.run("truncate -s 1T huge", rules=[ArtifactRule(glob="huge")])
    assert "'huge' brings it to 1099511627776 bytes" in verdict.message


# What a cloud's metadata service is to a VM: next door, and answering whoever asks. The neighbour
# beside it shows that packets go there and come back.
METADATA, NEIGHBOUR = "169.254.169.254", "192.0.2.2"
STAND_IN = f"""
set -e
nft delete table inet vmrunner 2>/dev/null || true
ip netns add there
ip link add near type veth peer name far netns there
ip address add 192.0.2.1/24 dev near
ip link set near up
ip -n there address add {NEIGHBOUR}/24 dev far
ip -n there address add {METADATA}/32 dev far
ip -n there link set far up
ip -n there route add default via 192.0.2.1
ip route add {METADATA}/32 via {NEIGHBOUR}
cat >/root/serve.py <<'EOS'
import socket
with socket.create_server(("", 80)) as server:
    while True:
        with server.accept()[0] as asked:
            asked.sendall(b"TOKEN")
EOS
systemd-run --quiet ip netns exec there python3 /root/serve.py
until ss -N there -Hltn | grep -q :80; do :; done
"""
ASK = f"""python3 - <<'EOS'
import socket
for address in ("{METADATA}", "{NEIGHBOUR}"):
    try:
        with socket.create_connection((address, 80), timeout=3) as asked:
            asked.settimeout(3)
            print(address, asked.recv(100).decode())
    except OSError as error:
        print(address, type(error).__name__)
EOS
"""


def test_metadata_answers_neither_the_build_nor_root_in_the_vm(vm: Vm) -> None:
    """The guest's own wall, which counts where the cloud cannot switch the service off."""
    token = secrets.token_hex(8)
    made = vm.connection.run(STAND_IN.replace("TOKEN", token), timeout=180)
    assert made.exit_code == 0, made.stderr

    def root() -> bytes:
        return vm.connection.run(ASK, timeout=180).stdout

    both = f"{METADATA} {token}\n{NEIGHBOUR} {token}\n".encode()
    walled = f"{METADATA} TimeoutError\n{NEIGHBOUR} {token}\n".encode()
    assert root() == both, "it answers before a build comes"
    assert vm.run(ASK, network=Network.OPEN).result is Result.SUCCESS
    assert vm.log == walled
    assert root() == walled
