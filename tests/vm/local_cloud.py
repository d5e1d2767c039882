"""A local cloud as a newcomer starts it: a process of its own, with real VMs behind it. And builds
there of which no vmrunner knows any more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from tests.vm.home import Home, processes_with, wait_until
from tests.vm.qemu_fixture import cache_dir
from tests.vm.serving import Serving, in_vm, submitted

#: A VM boots and begins its build in that time, also on a host that does more. Nobody waits for
#: its end: clocks and deadlines are put forward.
TTL: Final = "15m"

TALKS: Final = ("sh", "-c", "echo up; sleep 600")


@dataclass(frozen=True)
class Local(ABC):
    """`config` is what it printed, as it stands in the user's `config.toml`."""

    MODULE: ClassVar[str]
    NAME: ClassVar[str]  # of the provider there

    process: subprocess.Popen[str]
    scratch: Path
    config: str

    @classmethod
    def start(cls, place: Path) -> Self:
        cache_dir()
        place.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", cls.MODULE, "--port", "0"],
            env=os.environ | {"TMPDIR": str(place)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        while not lines or not lines[-1].startswith("max_instances"):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            lines.append(line)
        return cls(process, place, "".join(lines))

    def end(self) -> None:
        """As Ctrl-C does; no VM of it may be left, and nothing on the disk."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=120)
        assert (self.process.returncode, out) == (0, ""), err
        assert list(processes_with([str(self.scratch)])) == []
        assert list(self.scratch.iterdir()) == []

    @property
    def provider(self) -> dict[str, Any]:
        found: dict[str, Any] = tomllib.loads(self.config)["providers"][self.NAME]
        return found

    def of(self, build: str) -> str:
        """The name of the one instance that this build ever had."""
        (reference,) = self.all_of(build)
        return reference

    @abstractmethod
    def all_of(self, build: str) -> list[str]:
        """The names of all instances that this build ever had."""

    def vms(self, instance: str) -> list[str]:
        """Processes of its VM."""
        return list(processes_with([f"guest={instance}"]))

    def stands_still(self, build: str) -> bool:
        """The build has a VM by now, which is stopped: it takes no time of a processor."""
        vms = [line for name in self.all_of(build) for line in self.vms(name)]
        for line in vms:
            os.kill(int(line.split()[0]), signal.SIGSTOP)
        return bool(vms)


def newcomer(root: Path, *clouds: Local) -> Home:
    """A vmrunner that knows these clouds, the first by default, and by its configuration alone."""
    home = Home.make(root)
    first, *others = (cloud.config for cloud in clouds)
    others = [config[config.index("[providers.") :] for config in others]
    local = '[providers.local]\nkind = "qemu"\n'  # a home's environment says more of it
    file = home.root / "config/vmrunner/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join([first, *others, local]))
    return home


@contextmanager
def talking(home: Home, cloud: Local, booting: int) -> Iterator[list[str]]:
    """A build that runs, and so many more whose VMs stand still at their boot: what ends those asks
    no guest. Afterwards vmrunner is dead and its ledger gone."""
    serving = Serving(home)
    limits = ("--network", "none", "--timeout", "10m", "--ttl", TTL)
    try:
        still = [submitted(home, *limits, "--", *TALKS) for _ in range(booting)]
        wait_until(
            lambda: all(cloud.stands_still(build) for build in still),
            seconds=60,
            what=f"{booting} VMs that boot",
        )
        talks = submitted(home, *limits, "--", *TALKS)
        follower = home.start("logs", "-f", talks)
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"up\n"
        follower.kill()
        follower.communicate()
        yield [talks, *still]
    finally:
        serving.kill()
    shutil.rmtree(home.data)
    assert list(processes_with([str(home.root)])) == []


def born_by(home: Home, build: str, cloud: str) -> None:
    """It read this cloud's datasource and no other, found no fault in what it was told, and ran the
    commands, which block the metadata service, in its first stage."""
    in_vm(
        home, build,
        f'test "$(cat /run/cloud-init/cloud-id)" = {cloud} '
        "&& ! grep -iE 'warning|invalid|deprecated|traceback' /var/log/cloud-init.log >&2 "
        "&& grep -q 'init-network/config-scripts.user: SUCCESS' /var/log/cloud-init.log",
    )  # fmt: skip


def put_forward(home: Home, build: str, when: int) -> None:
    """Soon it is `when`, epoch seconds, in its guest: vmrunner has the time to die before."""
    in_vm(home, build, f"systemd-run --on-active=20 date -s @{when}")
