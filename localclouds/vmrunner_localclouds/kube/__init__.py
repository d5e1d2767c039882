"""A local Kubernetes: an API server on 127.0.0.1 for what drivers and `kubectl` ask, for tests and
for trying things out. It needs the extra `kube`.

    with LocalKube() as cluster:
        subprocess.run(["kubectl", "--kubeconfig", cluster.kubeconfig, "get", "pods"])

Every body that comes or goes is held against the published schemas: an unknown field is a 400, as
`fieldValidation=Strict` has it, and is told in `rejected`; a wrong object of this cluster's own is
told in `complaints`, and leaving the `with` raises. Semantics are those of 1.34, each shown by a
test that names its source.

Pods and VirtualMachineInstances go through the phases of the real ones by a clock that obeys
(`clock`); controllers are slow, off or wrong on demand; answers fail or never come (`faults`).

Every cluster is one of its own, so many can be alive in one process.
"""

from __future__ import annotations

try:
    from importlib.metadata import version as _version

    _version("kubernetes-validate")  # what the extra brings
except ImportError as missing:
    raise ImportError(f"{missing}; pip install 'vmrunner-localclouds[kube]'") from missing

from vmrunner_localclouds.common.faults import GARBAGE, LOST_ANSWER, LOST_REQUEST, RequestFate
from vmrunner_localclouds.kube.cloud import NAMESPACE, LocalKube
from vmrunner_localclouds.kube.faults import (
    AFTER_ALL,
    CONFLICT,
    EXPIRED,
    FORBIDDEN,
    INTERNAL,
    QUOTA,
    THROTTLED,
    TIMEOUT,
    TIMEOUT_AFTER_ALL,
    UNAUTHENTICATED,
    UNAVAILABLE,
    KubeFaults,
)
from vmrunner_localclouds.kube.machines import KubeMachine
from vmrunner_localclouds.kube.requests import KubeRequest

__all__ = [
    "AFTER_ALL",
    "CONFLICT",
    "EXPIRED",
    "FORBIDDEN",
    "GARBAGE",
    "INTERNAL",
    "LOST_ANSWER",
    "LOST_REQUEST",
    "NAMESPACE",
    "QUOTA",
    "THROTTLED",
    "TIMEOUT",
    "TIMEOUT_AFTER_ALL",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "KubeFaults",
    "KubeMachine",
    "KubeRequest",
    "LocalKube",
    "RequestFate",
]
