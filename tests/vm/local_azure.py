"""The local Azure of a process of its own, and what a test asks of it: plain HTTP."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Final

import requests

from deploy.azure.guard import function_app as guard
from tests.vm.home import wait_until
from tests.vm.local_cloud import Local

BEARER: Final = {"Authorization": "Bearer test"}
VERSIONS: Final = {
    "Microsoft.Compute/virtualMachines": "2024-07-01",
    "Microsoft.Compute/disks": "2024-03-02",
    "Microsoft.Network/networkInterfaces": "2024-05-01",
    "Microsoft.Network/publicIPAddresses": "2024-05-01",
}
VMS, *PARTS = VERSIONS
SCHEDULES: Final = "2025-05-01"


@dataclass(frozen=True)
class LocalAzure(Local):
    MODULE: ClassVar[str] = "vmrunner_localclouds.azure"
    NAME: ClassVar[str] = "azure"

    def ask(self, method: str, path: str, version: str, body: Any = None, **query: str) -> Any:
        """Of a path below the subscription."""
        provider = self.provider
        url = f"{provider['endpoint']}/subscriptions/{provider['subscription']}/{path}"
        query["api-version"] = version
        send = partial(requests.request, method, url, json=body, params=query, headers=BEARER)
        while (answer := send(timeout=30)).status_code == requests.codes.too_many_requests:
            time.sleep(float(answer.headers["Retry-After"]))  # as Azure says, of each VM alone
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def _in_group(self, kind: str, name: str = "", method: str = "GET", **more: Any) -> Any:
        path = f"resourceGroups/{self.provider['resource_group']}/providers/{kind}"
        return self.ask(method, f"{path}/{name}" if name else path, VERSIONS[kind], **more)

    def all_of(self, build: str) -> list[str]:
        found = self._in_group(VMS)["value"]
        return [
            str(resource["name"])
            for resource in found
            if resource["tags"].get("vmrunner:build") == build
        ]

    def names(self, kind: str) -> list[str]:
        return [str(resource["name"]) for resource in self._in_group(kind)["value"]]

    def state(self, instance: str) -> str:
        if instance not in self.names(VMS):
            return "gone"
        item = self._in_group(VMS, instance, **{"$expand": "instanceView"})
        codes = [status["code"] for status in item["properties"]["instanceView"]["statuses"]]
        states = [code for code in codes if code.startswith("PowerState/")]
        return states[0].partition("/")[2] if states else ""

    def tags(self, instance: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self._in_group(VMS, instance)["tags"]
        return found

    def deadline(self, instance: str) -> int:
        """Epoch seconds."""
        return int(self.tags(instance)["vmrunner:expires-at"])

    def wait_for(self, instance: str, state: str, *, seconds: float) -> None:
        wait_until(lambda: self.state(instance) == state, seconds=seconds, what=f"it to be {state}")
        assert self.vms(instance) == []

    def parts(self, instance: str) -> list[str]:
        """Kinds of its disk, interface and address that are there."""
        names = {kind.rpartition("/")[2]: self.names(kind) for kind in PARTS}
        return [kind for kind, found in names.items() if any(n.startswith(instance) for n in found)]

    # --- what a test does to it ---

    def strike_in(self, instance: str, seconds: float) -> None:
        """The cloud's own deallocation is so soon."""
        at = datetime.fromtimestamp(time.time() + seconds, UTC)
        values = {
            "schedule": {
                "deadline": f"{at:%Y-%m-%dT%H:%M:%SZ}",
                "timezone": "UTC",
                "deadlineType": "InitiateAt",
            },
            "executionParameters": {"retryPolicy": {"retryCount": 1, "retryWindowInMinutes": 10}},
            "resources": {"ids": [self._in_group(VMS, instance)["id"]]},
            "correlationid": str(uuid.uuid4()),
        }
        path = "providers/Microsoft.ComputeSchedule/locations"
        action = f"{path}/{self.provider['location']}/virtualMachinesSubmitDeallocate"
        answer = self.ask("POST", action, SCHEDULES, values)
        assert not answer["results"][0].get("errorCode"), answer

    def expire(self, instance: str, when: int) -> None:
        """By its tag, its deadline was at `when`, epoch seconds."""
        tags = {**self.tags(instance), "vmrunner:expires-at": str(when)}
        self._in_group(VMS, instance, "PATCH", body={"tags": tags})

    def guarded(self, installation: str, now: float) -> list[str]:
        """A pass of the guard at that time; the instances of VMs that it ended."""
        settings = guard.Settings(
            installation=installation,
            subscription=self.provider["subscription"],
            group=self.provider["resource_group"],
        )
        send = partial(guard.request, headers=BEARER)
        report = guard.guard(settings, send, now, base=self.provider["endpoint"])
        assert report["failures"] == []
        return [
            str(resource["instance"])
            for resource in report["ended"]
            if resource["kind"] == "instance"
        ]
