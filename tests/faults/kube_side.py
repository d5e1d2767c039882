"""Kubernetes as the cloud of a fault world: VMs of KubeVirt, or pods."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest import mock

from vmrunner_localclouds.kube import KubeMachine, LocalKube, timestamps
from vmrunner_localclouds.kube.access import User
from vmrunner_localclouds.kube.kinds import KINDS, NAMESPACES, PODS, RESOURCE_QUOTAS, SECRETS, VMIS
from vmrunner_localclouds.kube.kinds import Kind as ApiKind

from tests.faults import kube_requests
from tests.faults.http_resources import HttpResource, HttpVm, OrderTags
from tests.faults.http_side import HttpSide
from tests.support.kube_driver import IMAGE, Cluster
from vmrunner.model import TAG, Kind, Power, Reason, Ref, Scope
from vmrunner.providers.fake import Call, Clock
from vmrunner.providers.kubernetes import states
from vmrunner.providers.kubernetes.identity import KIND
from vmrunner.providers.kubernetes.labels import PREFIX, instance_id, job_owner, tags
from vmrunner.providers.kubernetes.provider import KubernetesProvider

THEIRS: Final = "theirs"
CLAIMS: Final = next(kind for kind in KINDS if kind.plural == "persistentvolumeclaims")


class SlowKube(LocalKube):
    """A cluster with the knobs of the other local clouds."""

    visibility_lag = 0.0  # its lists are what the store holds
    throttles = False

    @property
    def boot_seconds(self) -> float:
        return self.virt.seconds

    @boot_seconds.setter
    def boot_seconds(self, seconds: float) -> None:
        self.virt.seconds = self.kubelet.seconds = seconds

    @property
    def delete_seconds(self) -> float:
        return self.virt.stop_seconds

    @delete_seconds.setter
    def delete_seconds(self, seconds: float) -> None:
        self.virt.stop_seconds = self.kubelet.stop_seconds = seconds


class KubeVm(HttpVm):
    """A VM or pod, in Kubernetes' words."""

    @property
    def alive(self) -> bool:
        """True until its end was accepted: its own, or that of the Job which owns it."""
        machine = self.local
        if not machine.alive:
            return False
        uid = job_owner(machine.last["metadata"])
        found = machine.cloud.store.find(uid) if uid else None
        return uid is None or (
            found is not None and "deletionTimestamp" not in found[1]["metadata"]
        )

    @property
    def power(self) -> Power:
        machine = self.local
        if machine.gone:
            return Power.DEAD
        if machine.kind is VMIS:
            return states.vmi_view(machine.last, machine.cloud.now()).power
        return states.pod_view(machine.last, machine.cloud.now()).power

    @property
    def stopped(self) -> bool:
        return False

    @property
    def preempted(self) -> bool:
        return bool(self.local.status.get("reason") == "Preempting")


class KubeSide(HttpSide):
    """A namespace of its own, with VMs. The Jobs' own deadline, which ends all at E, is off unless
    a test wants it."""

    name = "cluster"
    driver = "kubernetes"
    runs: ClassVar[str] = "vmi"
    least_life = 40.0
    theirs = THEIRS
    leftovers = (Kind.SECRET, Kind.DISK)
    plantable = (Kind.INSTANCE, *leftovers)
    listings = kube_requests.LISTINGS
    ending = "jobs.delete"
    page = "vmrunner.providers.kubernetes.describe.PAGE"
    dry_reason = Reason.QUOTA
    fates = kube_requests.FATES
    troubles = kube_requests.TROUBLES
    more = kube_requests.MORE
    denied = kube_requests.FORBIDDEN
    strikes = ("die", "preempt", "power off", "hang")
    has_spot = False
    retagged = {"sizes": ("4x8GiB", "2x4GiB")}  # noqa: RUF012 - nobody changes it
    asks = staticmethod(kube_requests.asks)

    def __init__(self, clock: Clock) -> None:
        super().__init__(SlowKube(clock=clock, sleep=clock.sleep))
        self.local.jobs.on = False
        self.local.kubelet.deadline_late = 1e9
        self.local.access.users[THEIRS] = User(name=THEIRS, groups=("system:masters",))
        # Requests go out one by one: an episode is a function of its seed.
        patch = mock.patch("vmrunner.providers.kubernetes.delete.AT_ONCE", 1)
        self._within.enter_context(patch)
        self._within.enter_context(self.local)
        cache = self._within.enter_context(tempfile.TemporaryDirectory(prefix="kube-"))
        self.cluster = Cluster(self.local, clock, Path(cache))
        space = self.local.get(NAMESPACES, "vmrunner")
        assert space is not None
        self.scope = Scope(KIND, space["metadata"]["uid"], "vmrunner")
        self._planted = 0

    @property
    def machine_kind(self) -> ApiKind:
        return PODS if self.runs == "pod" else VMIS

    def provider(self, installation: str) -> KubernetesProvider:
        options = {"sizes": ("2x4GiB", "4x8GiB")} | self.options
        return self.cluster.provider(
            self.runs, name=self.name, installation=installation, **options
        )

    def call_of(self, request: Any) -> Call:
        return kube_requests.call_of(request, self.scope)

    def dry_up(self) -> None:
        """A quota lets no secret in, which comes before each of them."""
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"secrets": "0"}}}
        self.local.add_object(RESOURCE_QUOTAS, quota)

    def fill(self) -> None:
        (quota,) = self.local.all(RESOURCE_QUOTAS)
        self.local.delete(RESOURCE_QUOTAS, quota)

    def die(self, machine: KubeVm) -> None:
        """Somebody deletes it, and it is gone at once."""
        with self.local.held():
            local: KubeMachine = machine.local
            stop, self.local.delete_seconds = self.local.delete_seconds, 0.0
            local.stuck = False
            self.local.delete(local.kind, local.last)
            self.local.finish(local)
            self.local.delete_seconds = stop

    def preempt(self, machine: KubeVm) -> None:
        if machine.local.kind is PODS:
            machine.local.fail("Preempting", "to make room for another")
        else:
            self.die(machine)

    def power_off(self, machine: KubeVm) -> None:
        if machine.local.kind is PODS:
            machine.local.exit("vmrunner", 137, "OOMKilled")
        else:
            with self.local.held():
                machine.local.power_off()

    # --- what exists ---

    def _take_in(self) -> None:
        for machine in self.local.machines:
            meta = machine.last["metadata"]
            ref = Ref(self.scope, Kind.INSTANCE, instance_id(meta))
            if ref not in self._all:
                self._add_vm(ref, machine)
        for kind in (SECRETS, CLAIMS):
            for shown in self.local.store.all(kind):
                meta = shown["metadata"]
                port_kind = Kind.SECRET if kind is SECRETS else Kind.DISK
                ref = Ref(self.scope, port_kind, f"{meta['name']}/{meta['uid']}")
                if ref not in self._all:
                    uid = meta["uid"]
                    found = tags(meta.get("labels") or {})
                    self._add(ref, found, lambda uid=uid: self._is_there(uid), local=shown)

    def _is_there(self, uid: str) -> bool:
        found = self.local.store.find(uid)
        return found is not None and "deletionTimestamp" not in found[1]["metadata"]

    def _add_vm(self, ref: Ref, machine: KubeMachine) -> None:
        found = tags(machine.last["metadata"].get("labels") or {})
        self._all[ref] = KubeVm(
            ref=ref,
            tags=found,
            created_at=timestamps.read(machine.last["metadata"]["creationTimestamp"]),
            born_of_us=not self._planting,
            order=None if self._planting else OrderTags.of(found),
            local=machine,
        )

    # --- what others make ---

    def _make(self, kind: Kind, scope: Scope, tags: Mapping[str, str]) -> None:
        self._planted += 1
        labels = {PREFIX + key.removeprefix(TAG): _written(value) for key, value in tags.items()}
        meta = {"name": f"planted-{self._planted:03d}", "labels": labels}
        if kind is Kind.INSTANCE:
            self.local.add_object(self.machine_kind, {"metadata": meta, "spec": self._spec()})
        elif kind is Kind.DISK:
            spec = {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
            self.local.add_object(CLAIMS, {"metadata": meta, "spec": spec})
        else:
            self.local.add_object(SECRETS, {"metadata": meta, "type": "Opaque"})

    def _spec(self) -> dict[str, Any]:
        if self.runs == "pod":
            return {"containers": [{"name": "vmrunner", "image": IMAGE}]}
        return {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}

    def plant_lasting_images(self, installation: str) -> None:
        """There are no images here."""

    def finish(self, image: HttpResource) -> None:
        raise NotImplementedError

    def _image(self, tags: Mapping[str, str]) -> None:
        raise NotImplementedError

    def _born_at(self, planted: HttpResource, then: float) -> None:
        with self.local.held():
            uid = planted.ref.id.partition("/")[2]
            kind, shown = self.local.store.find(uid)
            meta = {**shown["metadata"], "creationTimestamp": timestamps.written(then)}
            self.local.store.replace(kind, shown, {**shown, "metadata": meta})


def _written(value: str) -> str:
    """A label takes few signs, and at its ends fewer."""
    return re.sub(r"^[^A-Za-z0-9]|[^A-Za-z0-9._-]|[^A-Za-z0-9]$", "x", value)


class PodSide(KubeSide):
    """The same with pods."""

    driver = "pods"
    runs = "pod"
