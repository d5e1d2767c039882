"""The local EC2 as a newcomer starts it: a process of its own, with real VMs behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from tests.vm.home import Home, processes_with, wait_until
from tests.vm.qemu_fixture import cache_dir
from vmrunner.testing.localcloud.__main__ import ENVIRONMENT

BY_GUEST = "Client.InstanceInitiatedShutdown"
BY_USER = "Client.UserInitiatedShutdown"


@dataclass(frozen=True)
class LocalEc2:
    """`config` is what it printed, as it stands in `vmrunner.toml`."""

    process: subprocess.Popen[str]
    scratch: Path
    config: str

    @classmethod
    def start(cls, place: Path) -> LocalEc2:
        cache_dir()
        place.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "vmrunner.testing.localcloud", "--port", "0"],
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
        out, err = self.process.communicate(timeout=30)
        assert (self.process.returncode, out) == (0, ""), err
        assert list(processes_with([str(self.scratch)])) == []
        assert list(self.scratch.iterdir()) == []

    @property
    def provider(self) -> dict[str, Any]:
        found: dict[str, Any] = tomllib.loads(self.config)["providers"]["aws"]
        return found

    @property
    def client(self) -> Any:
        return self._client("ec2")

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.provider["endpoint_url"],
            region_name=self.provider["region"],
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        )

    def newcomer(self, root: Path) -> Home:
        """A vmrunner that knows this cloud, and by its configuration alone."""
        home = Home.make(root)
        local = '[providers.local]\nkind = "qemu"\n'  # a home's environment says more of it
        (home.root / "cwd/vmrunner.toml").write_text(self.config + local)
        return home

    def of(self, build: str) -> str:
        """The id of the one instance that this build ever had."""
        wanted = [{"Name": "tag:vmrunner:build", "Values": [build]}]
        (one,) = self.client.describe_instances(Filters=wanted)["Reservations"]
        return str(one["Instances"][0]["InstanceId"])

    def item(self, instance: str) -> dict[str, Any]:
        """What the API says of an instance."""
        told = self.client.describe_instances(InstanceIds=[instance])
        found: dict[str, Any] = told["Reservations"][0]["Instances"][0]
        return found

    def tags(self, instance: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.item(instance).get("Tags", [])}

    def deadline(self, instance: str) -> int:
        """Epoch seconds."""
        return int(self.tags(instance)["vmrunner:expires-at"])

    def state(self, instance: str) -> str:
        return str(self.item(instance)["State"]["Name"])

    def wait_terminated(self, instance: str, *, seconds: float) -> str:
        """Until it is; returns why."""
        wait_until(
            lambda: self.state(instance) == "terminated", seconds=seconds, what="its termination"
        )
        assert self.vms(instance) == []
        return str(self.item(instance)["StateReason"]["Code"])

    def vms(self, instance: str) -> list[str]:
        """Processes of its VM."""
        return list(processes_with([f"guest={instance}"]))

    @property
    def scheduler(self) -> Any:
        return self._client("scheduler")

    def schedules(self, instance: str) -> list[tuple[str, str]]:
        """Those that would end it: group and name."""
        name = self.tags(instance).get("vmrunner:instance", instance)
        found = self.scheduler.list_schedules(NamePrefix=f"{name}.")["Schedules"]
        return [(one["GroupName"], one["Name"]) for one in found]

    def fire(self, instance: str, seconds: float) -> None:
        """Put its schedule forward, so that it fires in so many seconds."""
        ((group, name),) = self.schedules(instance)
        at = datetime.fromtimestamp(time.time() + seconds, UTC)
        known = self.scheduler.get_schedule(GroupName=group, Name=name)
        kept = ("FlexibleTimeWindow", "ScheduleExpressionTimezone", "State", "Target")
        self.scheduler.update_schedule(
            GroupName=group,
            Name=name,
            ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
            **{key: known[key] for key in kept},
        )

    def furniture(self, instance: str) -> list[str]:
        """Disks and interfaces that hang on it, or did and are left."""
        client = self.client
        name = self.tags(instance).get("vmrunner:instance", instance)
        found = client.describe_volumes()["Volumes"]
        found += client.describe_network_interfaces()["NetworkInterfaces"]
        return [text for text in map(str, found) if name in text or instance in text]
