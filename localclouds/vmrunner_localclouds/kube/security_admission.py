"""Pod Security admission (kubernetes.io, "Pod Security Admission"): a namespace's labels say which
level is enforced for its pods, and of which its writers are warned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import pod_security
from vmrunner_localclouds.kube.api_error import Cause, Json, forbidden, wrong
from vmrunner_localclouds.kube.kinds import NAMESPACES, PODS, Kind
from vmrunner_localclouds.kube.pod_security import LEVELS, PRIVILEGED, Policy

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

LABEL: Final = "pod-security.kubernetes.io/"
_MODES: Final = ("enforce", "audit", "warn")
_VERSION: Final = re.compile(r"latest|v1\.(0|[1-9]\d*)")


def problems(labels: Mapping[str, str]) -> list[Cause]:
    """All that is wrong with a namespace's labels."""
    found = []
    for mode in _MODES:
        for suffix, valid, text in (
            ("", LEVELS.__contains__, f"must be one of {', '.join(LEVELS)}"),
            ("-version", _VERSION.fullmatch, 'must be "latest" or "v1.x"'),
        ):
            key = f"{LABEL}{mode}{suffix}"
            if key in labels and not valid(labels[key]):
                found.append(wrong(f"metadata.labels[{key}]", labels[key], text))
    return found


class SecurityAdmission:
    """Judges what is about to be written in a namespace."""

    def __init__(self, cloud: LocalKube) -> None:
        self._cloud = cloud

    def admit(self, kind: Kind, shown: Json) -> None:
        """Raises `KubeRefusal`: 403, for a pod that its namespace does not allow."""
        if kind is not PODS:
            return
        policy, _ = self._policies(shown)
        if found := self._judge(policy, shown["metadata"], shown["spec"]):
            name = shown["metadata"]["name"]
            raise forbidden(kind.resource, name, f'violates PodSecurity "{policy}": {found}')

    def admit_change(self, kind: Kind, before: Json, shown: Json) -> None:
        """The same for a pod one of whose images changes; nothing else of it is judged again."""
        if kind is PODS and _images(before) != _images(shown):
            self.admit(kind, shown)

    def warnings(self, kind: Kind, shown: Json) -> tuple[str, ...]:
        """The warnings that whoever wrote this is answered with."""
        pod = (shown["metadata"], shown["spec"]) if kind is PODS else pod_security.template(shown)
        if pod is None or not kind.namespaced or kind.custom:
            return ()
        _, policy = self._policies(shown)
        found = self._judge(policy, *pod)
        return (f'would violate PodSecurity "{policy}": {found}',) if found else ()

    # --- within ---

    def _policies(self, shown: Json) -> tuple[Policy, Policy]:
        """Policies of an object's namespace: the enforced one, and the one that is warned of."""
        namespace = shown["metadata"].get("namespace", "")
        found = self._cloud.store.get(NAMESPACES, "", namespace) or {"metadata": {}}
        labels = found["metadata"].get("labels") or {}
        enforce, warn = (
            Policy(
                labels.get(f"{LABEL}{mode}", PRIVILEGED),
                labels.get(f"{LABEL}{mode}-version", "latest"),
            )
            for mode in ("enforce", "warn")
        )
        if f"{LABEL}warn" not in labels:
            version = labels.get(f"{LABEL}warn-version", enforce.version)
            warn = Policy(enforce.level, version)
        return enforce, warn

    def _judge(self, policy: Policy, metadata: Json, spec: Json) -> str:
        server = int(self._cloud.version.partition(".")[2])
        return pod_security.violations(policy, server, metadata, spec)


def _images(pod: Json) -> list[list[str | None]]:
    fields = ("initContainers", "containers", "ephemeralContainers")
    return [[part.get("image") for part in pod["spec"].get(field) or ()] for field in fields]
