"""A QEMU provider of a test's own, orders for it, and SSH by the plain `ssh` program."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.home import CACHE, wait_until
from vmrunner import images
from vmrunner.images import templates as making
from vmrunner.images.template_vms import TemplateVms
from vmrunner.ledger import Ledger
from vmrunner.lib import ids, unix_sockets
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.lib.cloudinit import user_data as cloudinit
from vmrunner.model import (
    Access,
    Identity,
    Key,
    Kind,
    Network,
    Order,
    Power,
    Ref,
    Role,
    Seen,
    Shape,
    Spec,
    Start,
)
from vmrunner.providers import qemu
from vmrunner.providers.qemu import processes, templates
from vmrunner.providers.qemu.provider import QemuProvider
from vmrunner.session.ssh import keys

INSTALLATION = "00000000-0000-4000-8000-000000000001"
GENERATION = "00000000-0000-4000-8000-000000000002"
SHAPE = Shape(container="debian:trixie", runtime="runc", log_bytes=64 << 20)
MiB = 1024**2
GiB = 1024**3


def cache_dir() -> Path:
    """Where images lie: the user's cache, with the default one."""
    return image("default").directory.parent.parent


def image(recipe: str) -> images.LocalImage:
    """Built unless it is there as this tree makes it: an older one would test another guest."""
    cache = Path(os.environ.get("VMRUNNER_TEST_CACHE", Path(CACHE) / "vmrunner"))
    return images.build(images.find(recipe), cache=cache)


def make_provider(tmp_path: Path, *, cache: Path | None = None, **options: Any) -> QemuProvider:
    """A provider with its state under `tmp_path`, and VMs of the size that a test's home has."""
    small = {"cpus": 1, "memory": 1 * GiB, "disk": 9 * GiB}
    return qemu.open(
        "local",
        state_dir=tmp_path / "qemu",
        cache_dir=cache or cache_dir(),
        installation=INSTALLATION,
        **{**small, **options},
    )


def template_of(provider: QemuProvider, network: Network = Network.NONE) -> templates.Template:
    """The template of clones of that shape; made once, as long as nothing that it depends on
    changes."""
    place = provider.options.state_dir.parent
    ledger = Ledger.open(f"sqlite:///{place}/templates.db", data_dir=place)
    try:
        vms, spec = TemplateVms(ledger, provider, "e-1"), Spec(network=network)
        making.make(provider, spec, SHAPE, vms=vms)
        order, _ = making.order_for(provider, spec, SHAPE, vms)
        assert not ledger.instances.open()
    finally:
        ledger.close()
    key = provider.plan(order).template_key()
    assert key is not None
    found = templates.find(provider.options.cache_dir, key, provider.verified)
    assert found is not None
    return found


@dataclass(frozen=True)
class Machine:
    """One VM that a test ordered, and how to get into it."""

    provider: QemuProvider
    order: Order
    access: Access
    directory: Path  # for the keys

    @classmethod
    def order_one(
        cls,
        provider: QemuProvider,
        directory: Path,
        *,
        network: Network = Network.NONE,
        ttl: float = 300,
        stock: bool = False,
        shape: Shape | None = None,
    ) -> Machine:
        """`shape`: the VM takes its identity from its channel, and may be a clone."""
        instance = ids.instance_id()
        user, host = keys.generate(), keys.generate()
        deadline = time.time() + ttl
        user_data = cloudinit.user_data(
            instance=instance,
            deadline=deadline,
            boot_ttl=ttl,
            authorized_key=user.public,
            host_private=host.private,
            host_public=host.public,
            platform="local",
            stock=stock,
        )
        order = Order(
            instance=instance,
            build=ids.build_id(),
            installation=INSTALLATION,
            generation=GENERATION,
            role=Role.BUILD,
            offer=provider.offers(Spec(network=network))[0],
            deadline=deadline,
            user_data=user_data,
            network=network,
            identity=_identity(user, host) if shape else None,
            shape=shape,
        )
        return cls(
            provider, order, Access(user_private=user.private, host_public=host.public), directory
        )

    @property
    def qemu(self) -> int:
        """The process, as this host counts."""
        (pid,) = (
            process_id.pid
            for process_id, name in processes.marked(self.provider._mark)
            if self.order.instance in name and b"-m\0vmrunner" not in _words(process_id.pid)
        )
        return pid

    @property
    def ref(self) -> Ref:
        return Ref(self.provider.scope, Kind.INSTANCE, self.order.instance)

    @property
    def home(self) -> Path:
        (home,) = self.provider.state.instances.glob(f"*_{self.order.instance}_*")
        return home

    def look(self) -> Seen | None:
        key = Key(self.provider.scope, self.order.instance)
        return self.provider.look([key]).get(key)

    def dead(self) -> Seen | None:
        """What is seen of it once it is dead and its directory gone."""
        seen = self.look()
        remaining = list(self.provider.state.instances.iterdir())
        return seen if seen and seen.power is Power.DEAD and not remaining else None

    def wait_dead(self, seconds: float) -> Seen:
        seen = wait_until(self.dead, seconds=seconds, what=f"{self.order.instance} to be dead")
        assert isinstance(seen, Seen)
        return seen

    def ssh(self, command: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Strictly checked against the host key that we planted."""
        seen = self.look()
        assert seen is not None
        assert seen.address is not None, seen
        key, known_hosts = self.directory / "key", self.directory / "known_hosts"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(self.access.user_private)
            known_hosts.write_text(f"vm {self.access.host_public}\n")
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "10",
            "LogLevel": "ERROR",
            "ProxyUseFdpass": "yes",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        try:
            stream = UNIX_SOCKET.open(seen.address)
        except OSError as error:
            return subprocess.CompletedProcess([], 255, "", str(error))
        with stream, unix_sockets.handed_out(stream) as proxy:
            words.append(f"-oProxyCommand={proxy}")
            return subprocess.run(
                ["ssh", "-F", "none", "-i", str(key), *words, "root@vm", command],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )

    def wait_started(self) -> Start:
        """How it came up, once that is known."""

        def start() -> Start | None:
            seen = self.look()
            return seen.start if seen else None

        found = wait_until(start, seconds=400, what="how the VM came up")
        assert isinstance(found, Start)
        return found

    def wait_booted(self, seconds: float = 200) -> None:
        """Until a command runs in it."""

        def answers() -> bool:
            seen = self.look()
            assert seen is not None
            assert seen.power is Power.RUNNING, (seen, self.provider.console(self.ref))
            return self.ssh("true").returncode == 0

        wait_until(answers, seconds=seconds, what="SSH")


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _identity(user: keys.KeyPair, host: keys.KeyPair) -> Identity:
    return Identity(user_key=user.public, host_key=host.private, host_public=host.public)
