"""The local cluster: what exists, the knobs, and the endpoint."""

from __future__ import annotations

import base64
import contextlib
import heapq
import json
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.common.json_cloud import JsonCloud
from vmrunner_localclouds.kube import connect, deletes, guest_vms, kubelet, writes
from vmrunner_localclouds.kube.access import ADMIN, Access
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.connect import Stream
from vmrunner_localclouds.kube.definitions import DefinitionController
from vmrunner_localclouds.kube.endpoint import KubeEndpoint
from vmrunner_localclouds.kube.exec_streams import Program
from vmrunner_localclouds.kube.faults import KubeFaults
from vmrunner_localclouds.kube.garbage import GarbageCollector
from vmrunner_localclouds.kube.jobs import JobController, JobStrategy, TtlController
from vmrunner_localclouds.kube.kinds import (
    JOBS,
    KINDS,
    LIMIT_RANGES,
    NAMESPACES,
    NODES,
    PODS,
    RUNTIME_CLASSES,
    SECRETS,
    VMIS,
    Kind,
)
from vmrunner_localclouds.kube.kubelet import Kubelet, Scheduler
from vmrunner_localclouds.kube.limit_ranges import LimitRanger, LimitRangeStrategy
from vmrunner_localclouds.kube.machines import GONE, KubeMachine
from vmrunner_localclouds.kube.namespaces import NamespaceController, NamespaceStrategy
from vmrunner_localclouds.kube.network_plugin import NetworkPlugin
from vmrunner_localclouds.kube.pod_rules import PodStrategy
from vmrunner_localclouds.kube.quotas import QuotaController
from vmrunner_localclouds.kube.real_pods import RealPods
from vmrunner_localclouds.kube.requests import KubeRequest
from vmrunner_localclouds.kube.schemas import Schemas
from vmrunner_localclouds.kube.secret_rules import SecretStrategy
from vmrunner_localclouds.kube.security_admission import SecurityAdmission
from vmrunner_localclouds.kube.store import Change, Store
from vmrunner_localclouds.kube.strategies import Strategy
from vmrunner_localclouds.kube.vmis import VirtController, VmiStrategy, is_launcher
from vmrunner_localclouds.pods import Pods
from vmrunner_localclouds.vms import Vms

NAMESPACE: Final = "vmrunner"
VERSION: Final = "1.34"
_FIRST: Final = ("default", "kube-system", "kubevirt", NAMESPACE)
#: Names of runtime classes, and of their handlers.
_CLASSES: Final = {"gvisor": "runsc", "kata-qemu": "kata-qemu", "runc": "runc"}


class LocalKube(JsonCloud[KubeMachine, KubeRequest, RequestFate]):
    """One cluster of one node. All plain attributes may be changed at any time, and all of its
    controllers (`scheduler`, `kubelet`, `virt`, `jobs`, `ttl`, `garbage`, `namespaces`, `quotas`,
    `network`) can be slow, off or wrong. With `vms` a real VM is behind every VMI, with `pods` real
    containers behind every pod; then the clock must be the real one."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
        version: str = VERSION,
        vms: Vms | None = None,
        pods: Pods | None = None,
    ) -> None:
        super().__init__(clock, sleep, KubeFaults(), vms)
        self.version = version
        self._depth = 0  # of those who hold the clock
        self.namespace = NAMESPACE  # for a driver
        self.kinds: dict[tuple[str, str, str], Kind] = {
            (kind.group, kind.version, kind.plural): kind for kind in KINDS
        }
        self.schemas = Schemas(version)
        self.changed = threading.Condition(self.lock)
        self.store = Store(self.now, self.changed)
        self.store.listeners.append(self._note)
        self._machines: dict[str, KubeMachine] = {}  # by uid
        self._strategies: Mapping[Kind, Strategy] = {
            JOBS: JobStrategy(),
            LIMIT_RANGES: LimitRangeStrategy(),
            NAMESPACES: NamespaceStrategy(),
            PODS: PodStrategy(),
            SECRETS: SecretStrategy(),
            VMIS: VmiStrategy(),
        }
        self.access = Access(self)
        self.token = self.access.token(ADMIN)
        self.limits = LimitRanger(self)
        self.security = SecurityAdmission(self)
        self.quotas = QuotaController(self)
        self.namespaces = NamespaceController(self)
        self.scheduler = Scheduler(self)
        self.kubelet = Kubelet(self)
        self.virt = VirtController(self)
        self.jobs = JobController(self)
        self.ttl = TtlController(self)
        self.garbage = GarbageCollector(self)
        self.network = NetworkPlugin(self)
        DefinitionController(self)
        self.containers = RealPods(self, pods) if pods is not None else None
        #: The program behind an exec stream into a pod that is a state alone; None: there is none.
        self.programs: Callable[[KubeMachine, str, Sequence[str]], Program] | None = None
        #: The connection to a port of a machine that is a state alone.
        self.ports: Callable[[KubeMachine, int], socket.socket] | None = None
        self.streams: set[Stream] = set()  # that are open
        self._endpoint = self._api = KubeEndpoint(self)
        self._directory = tempfile.TemporaryDirectory(prefix="localkube-")
        with self.held():
            for name in _FIRST:
                self.add_object(NAMESPACES, {"metadata": {"name": name}})
            self.store.create(NODES, kubelet.node(self))
            for name, handler in _CLASSES.items():
                self.add_object(RUNTIME_CLASSES, {"metadata": {"name": name}, "handler": handler})

    # --- time ---

    def later(self, seconds: float, effect: Callable[[], object]) -> None:
        """Let `effect` happen in so many seconds: never within the write that causes it."""
        with self.lock:
            at = self.now() + max(seconds, 0.0)
            heapq.heappush(self._due, (at, next(self._number), effect))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the clock; what is due at the end of it happens then."""
        with self.lock:
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._drain()
            finally:
                self._depth -= 1

    def settle(self) -> None:
        """Let all happen that is due."""
        with self.held():
            pass

    def _drain(self) -> None:
        while self._due and self._due[0][0] <= self.now():
            heapq.heappop(self._due)[2]()

    def start(self, port: int = 0) -> None:
        super().start(port)
        if self.containers is not None:
            self.containers.begin()
        self.kubeconfig.write_text(json.dumps(self.config(self.token)))  # which is YAML too

    def stop(self) -> None:
        self.cut_streams()
        super().stop()
        if self.containers is not None:
            self.containers.close()
        self._directory.cleanup()

    @property
    def kubeconfig(self) -> Path:
        """A file for `kubectl`: this cluster, its administrator, and the namespace for a driver."""
        return Path(self._directory.name) / "kubeconfig"

    @property
    def authority(self) -> bytes:
        """The PEM by which a client knows this server."""
        return self._api.authority

    def renew_certificate(self) -> None:
        """Serve with another certificate, by another authority, from the next connection on."""
        self._api.renew_certificate()

    def config(self, token: str, namespace: str = NAMESPACE) -> Json:
        """A kubeconfig with one context, for whoever has this token."""
        authority = base64.b64encode(self.authority).decode()
        cluster = {"server": self.url, "certificate-authority-data": authority}
        context = {"cluster": "local", "user": "local", "namespace": namespace}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "local", "user": {"token": token}}],
            "contexts": [{"name": "local", "context": context}],
            "current-context": "local",
        }

    # --- what is there ---

    def strategy(self, kind: Kind) -> Strategy:
        return self._strategies.get(kind, _PLAIN)

    def kind_of(self, api: str, name: str) -> Kind | None:
        """The kind of `apiVersion` and `kind`."""
        found = (kind for kind in self.kinds.values() if kind.kind == name)
        return next((kind for kind in found if kind.group_version == api), None)

    def machine(self, uid: str) -> KubeMachine | None:
        """The pod or VMI with this uid, there or gone."""
        return self._machines.get(uid)

    def get(self, kind: Kind, name: str, namespace: str = NAMESPACE) -> Json | None:
        """One object, as the API would show it."""
        self.settle()
        with self.held():
            return self.store.get(kind, namespace if kind.namespaced else "", name)

    def all(self, kind: Kind, namespace: str = "") -> list[Json]:
        """All objects of a kind, as the API would show them."""
        self.settle()
        with self.held():
            return self.store.all(kind, namespace)

    # --- what befalls it ---

    def add_object(self, kind: Kind, shown: Mapping[str, Any], namespace: str = NAMESPACE) -> Json:
        """Create an object as a client would. Raises `KubeRefusal`."""
        made = {"apiVersion": kind.group_version, "kind": kind.kind} | dict(shown)
        made["metadata"] = dict(made["metadata"])
        with self.held():
            return writes.add(self, kind, made, namespace)

    def delete(self, kind: Kind, shown: Json, **options: Any) -> None:
        """Delete an object as a client would. Raises `KubeRefusal`."""
        with self.held():
            deletes.delete(self, kind, shown, options)

    def collect(self, kind: Kind, shown: Json) -> None:
        deletes.collect(self, kind, shown)

    def remove_finalizer(self, kind: Kind, shown: Json, finalizer: str) -> None:
        """Remove a finalizer; with the last of them goes what is deleted."""
        kept = [each for each in shown["metadata"].get("finalizers") or () if each != finalizer]
        metadata = {**shown["metadata"], "finalizers": kept}
        if not kept:
            del metadata["finalizers"]
        written = self.store.replace(kind, shown, {**shown, "metadata": metadata})
        self.collect(kind, written)

    def finish(self, machine: KubeMachine) -> None:
        """End a machine whose delete was stuck."""
        if machine.kind is PODS:
            self.kubelet.finish(machine.last)
        else:
            self.virt.finish(machine.last)

    def embody(self, machine: KubeMachine) -> bool:
        """Give a VMI its VM, where this cluster has any. False: it is a state alone."""
        if self.bodies is None:
            return False
        guest_vms.embody(machine, self.bodies)
        return True

    def streamed(self, stream: Stream) -> Callable[[BaseHTTPRequestHandler], None]:
        return connect.streamed(self.streams, stream)

    def cut_streams(self) -> None:
        """Break all streams and watches off."""
        for stream in list(self.streams):
            stream.cut()

    def handler_of(self, pod: Json) -> str:
        """The handler of a pod's runtime class: `runsc`."""
        name = pod["spec"].get("runtimeClassName")
        found = self.store.get(RUNTIME_CLASSES, "", name) if name else None
        return str(found["handler"]) if found is not None else "runc"

    def lose_node(self) -> None:
        """Let the node go silent; its pods run on."""
        with self.held():
            kubelet.lose(self)

    def find_node(self) -> None:
        with self.held():
            kubelet.find(self)

    def new_uid(self) -> str:
        return str(uuid.uuid4())

    def _note(self, change: Change) -> None:
        """Keep the list of machines."""
        shown = change.object
        if change.kind not in (PODS, VMIS) or (change.kind is PODS and is_launcher(shown)):
            return
        uid = shown["metadata"]["uid"]
        machine = self._machines.get(uid)
        if machine is None:
            machine = KubeMachine(cloud=self, kind=change.kind, last=shown)
            self._machines[uid] = machine
            self.machines.append(machine)
        phase = GONE if change.type == "DELETED" else (shown.get("status") or {}).get("phase", "")
        machine.note(shown, phase)


_PLAIN: Final = Strategy()
