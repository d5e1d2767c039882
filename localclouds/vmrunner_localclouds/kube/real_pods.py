"""Pods with real containers (`vmrunner_localclouds.pods`), whose status is the API's."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import events
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.kinds import PODS, SECRETS
from vmrunner_localclouds.kube.machines import KubeMachine

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube
    from vmrunner_localclouds.pods import Pods
    from vmrunner_localclouds.pods.walls import Wall

_TICK: Final = 0.2  # seconds between looks at what is due
_MOUNT_AGAIN: Final = 1.0  # seconds until a secret is looked for again
_QOS: Final = ("qosClass",)


class RealPods:
    """The containers of one cluster. It closes none of what its caller has opened but pods."""

    def __init__(self, cloud: LocalKube, pods: Pods) -> None:
        self._cloud = cloud
        self._pods = pods
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="localkube", daemon=True)
        self._enders: list[threading.Thread] = []

    def begin(self) -> None:
        self._ticker.start()

    def close(self) -> None:
        """End all pods, and return when they have ended."""
        self._stopped.set()
        self._ticker.join()
        for ender in self._enders:
            ender.join()
        for machine in self._cloud.machines:
            if machine.running is not None:
                machine.running.close()

    def start(self, machine: KubeMachine) -> None:
        """Start a pod's containers, once its secrets are there."""
        cloud, pod = self._cloud, machine.last
        secrets: dict[str, dict[str, bytes]] = {}
        for name in _secrets_of(pod["spec"]):
            found = cloud.store.get(SECRETS, machine.namespace, name)
            if found is None:
                text = f'MountVolume.SetUp failed for volume: secret "{name}" not found'
                events.tell(cloud, pod, "FailedMount", text, "kubelet", bad=True)
                cloud.later(_MOUNT_AGAIN, lambda: cloud.kubelet.start(machine.uid))
                return
            data = found.get("data") or {}
            secrets[name] = {key: base64.b64decode(value) for key, value in data.items()}
        try:
            machine.running = self._pods.start(
                machine.name,
                pod,
                secrets=secrets,
                runtime=cloud.handler_of(pod),
                on_change=lambda: self._changed(machine),
            )
        except ValueError as error:
            cloud.kubelet.fail_sandbox(pod, str(error))

    def wall_in(self, walls: Mapping[str, Wall]) -> None:
        """Let these walls, by pods' addresses, be all that there are."""
        self._pods.wall_in(walls)

    def stop(self, machine: KubeMachine, grace: float) -> None:
        """End a deleted pod's containers; then its object goes."""
        ender = threading.Thread(target=self._end, args=(machine, grace), daemon=True)
        self._enders.append(ender)
        ender.start()

    def _end(self, machine: KubeMachine, grace: float) -> None:
        machine.running.stop(grace)
        with self._cloud.held():
            self._mirror(machine)
            if not machine.gone and not machine.stuck:
                self._cloud.kubelet.finish(machine.last)

    def _changed(self, machine: KubeMachine) -> None:
        with self._cloud.held():
            self._cloud.kubelet.soon(lambda: self._mirror(machine))

    def _mirror(self, machine: KubeMachine) -> None:
        """Write the containers' status to the API."""
        pod = machine.last
        if machine.gone or machine.running is None:
            return
        kept = {key: pod["status"][key] for key in _QOS if key in pod["status"]}
        status = {**machine.running.status(), **kept, **self._cloud.kubelet.host}
        self._cloud.store.replace(PODS, pod, {**pod, "status": status})

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK):
            self._cloud.settle()


def _secrets_of(spec: Json) -> list[str]:
    """Names of the secrets that must be there."""
    names = [
        volume["secret"]["secretName"]
        for volume in spec.get("volumes") or ()
        if volume.get("secret") and not volume["secret"].get("optional")
    ]
    return [*names, *(each["name"] for each in spec.get("imagePullSecrets") or ())]
