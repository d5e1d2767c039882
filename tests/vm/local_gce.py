"""The local GCE of a process of its own, and what a test asks of it: plain HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import requests

from deploy.gcp.guard import main as guard
from tests.vm.home import wait_until
from tests.vm.local_cloud import Local
from vmrunner.providers.gce.guard import name_of


@dataclass(frozen=True)
class LocalGce(Local):
    MODULE: ClassVar[str] = "vmrunner_localclouds.gce"
    NAME: ClassVar[str] = "gce"

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        url = f"{self.base}/projects/{self.provider['project']}/{path}"
        answer = requests.request(method, url, json=body, params=query, timeout=30)
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @property
    def base(self) -> str:
        """Of the API's paths."""
        return f"{self.provider['api_endpoint']}/compute/v1"

    def listed(self, collection: str, wanted: str = "") -> list[dict[str, Any]]:
        """All of a kind in all zones; `wanted` is a filter."""
        sections = self.ask("GET", f"aggregated/{collection}", filter=wanted)["items"].values()
        return [item for section in sections for item in section.get(collection, [])]

    def all_of(self, build: str) -> list[str]:
        found = self.listed("instances", f"labels.vmrunner-build={build}")
        return [str(machine["name"]) for machine in found]

    def item(self, instance: str) -> dict[str, Any] | None:
        """What the API says of an instance; None: it is gone."""
        return next(iter(self.listed("instances", f"name={instance}")), None)

    def state(self, instance: str) -> str:
        item = self.item(instance)
        return str(item["status"]) if item else "gone"

    def labels(self, instance: str) -> dict[str, str]:
        item = self.item(instance)
        assert item is not None
        found: dict[str, str] = item["labels"]
        return found

    def deadline(self, instance: str) -> int:
        """Epoch seconds."""
        return int(self.labels(instance)["vmrunner-expires-at"])

    def wait_for(self, instance: str, state: str, *, seconds: float) -> None:
        wait_until(lambda: self.state(instance) == state, seconds=seconds, what=f"it to be {state}")
        assert self.vms(instance) == []

    def disks(self, instance: str) -> list[str]:
        return [disk["name"] for disk in self.listed("disks", f"name={instance}")]

    def path(self, instance: str) -> str:
        item = self.item(instance)
        assert item is not None
        return f"zones/{item['zone'].rpartition('/')[2]}/instances/{instance}"

    # --- what a test does to it ---

    def guard(self, installation: str, region: str, roles: str) -> None:
        """There is a guard for these roles, by its job in Cloud Scheduler, and it passed."""
        url, project = self.provider["api_endpoint"], self.provider["project"]
        name, jobs = name_of(installation), f"projects/{project}/locations/{region}/jobs"
        job = {"name": f"{jobs}/{name}", "description": f"Roles: {roles}."}
        account = {"accountId": name}
        for place, resource in ((jobs, job), (f"projects/{project}/serviceAccounts", account)):
            answer = requests.post(f"{url}/v1/{place}", json=resource, timeout=30)
            assert answer.ok, answer.text
        email = answer.json()["email"]
        settings = guard.Settings(installation=installation, project=project, account=email)
        guard.invoked(settings, requests.Session(), time.time(), url=url)

    def strike_in(self, instance: str, seconds: float) -> None:
        """The cloud's own deadline is so soon, at least half a minute."""
        at = datetime.fromtimestamp(time.time() + seconds, UTC)
        ends = {
            "instanceTerminationAction": "DELETE",
            "terminationTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        }
        self._schedule(instance, ends)

    def disarm(self, instance: str) -> None:
        """The cloud itself does not end it any more."""
        self._schedule(instance, {})
        item = self.item(instance)
        assert item is not None
        assert "terminationTimestamp" not in item["resourceStatus"]["scheduling"]

    def _schedule(self, instance: str, ends: dict[str, str]) -> None:
        values = {"automaticRestart": False, "onHostMaintenance": "TERMINATE", **ends}
        self.ask("POST", f"{self.path(instance)}/setScheduling", values)

    def expire(self, instance: str, when: int) -> None:
        """By its label, its deadline was at `when`, epoch seconds."""
        item = self.item(instance)
        assert item is not None
        labels = {**item["labels"], "vmrunner-expires-at": str(when)}
        values = {"labels": labels, "labelFingerprint": item["labelFingerprint"]}
        self.ask("POST", f"{self.path(instance)}/setLabels", values)
