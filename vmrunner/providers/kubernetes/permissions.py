"""The rights that these credentials have, asked of the API server itself.

Credentials that may create and not delete leave bills behind: without the right to delete nothing
is launched, and everything is still swept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from vmrunner.errors import CredentialsRefused
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.permissions import GRANTED, REFUSED
from vmrunner.providers.kubernetes.client import KubeClient
from vmrunner.providers.kubernetes.options import KubernetesOptions

_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Verb(NamedTuple):
    """One right in the namespace."""

    verb: str
    resource: str  # with its subresource: pods/exec
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


DELETE: Final = Verb("delete", "jobs", "batch")
#: Rights without which a build runs all the same, and what is not told then.
OPTIONAL: Final = {
    Verb("list", "resourcequotas"): "a quota that is used up",
    Verb("list", "events"): "why a node does not start a pod",
}


def _of(resource: str, verbs: str, group: str = "") -> tuple[Verb, ...]:
    return tuple(Verb(verb, resource, group) for verb in verbs.split())


_VMIS: Final = ("virtualmachineinstances", "kubevirt.io")
#: What is made is the configuration's; what is found, and so looked at, lowered and ended, may be a
#: former one's. The right to delete comes first.
_ALWAYS: Final = (
    *_of("jobs", "delete create get list patch", "batch"),
    *_of("secrets", "delete create get list"),
    *_of("pods", "delete get list patch"),
    *_of(_VMIS[0], "delete get list", _VMIS[1]),
    *_of("persistentvolumeclaims", "delete list"),
    *_of("namespaces", "get"),
    *_of("pods/log", "get"),
)
#: From Kubernetes 1.35 a WebSocket needs `create` beside `get`.
_OF_PODS: Final = (*_of("pods", "create"), *_of("pods/exec", "get create"))
_OF_VMS: Final = (
    *_of(_VMIS[0], "create", _VMIS[1]),
    *_of(f"{_VMIS[0]}/portforward", "get create", f"subresources.{_VMIS[1]}"),
)
_OF_VOLUMES: Final = _of("persistentvolumeclaims", "create get")


def needed(options: KubernetesOptions) -> Iterator[Verb]:
    """Yield the rights of such a provider, the one to delete first."""
    yield from _ALWAYS
    yield from _OF_VMS if options.runs == "vmi" else ()
    # A probe of network policies is a pod, of whatever runs builds.
    yield from _OF_PODS if options.runs == "pod" or options.probes_network else ()
    yield from _OF_VOLUMES if options.runs == "vmi" and options.volume is not None else ()


class KubePermissions:
    """The knowledge of the right to delete. Thread-safe."""

    def __init__(
        self,
        options: KubernetesOptions,
        client: KubeClient,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        self._options = options
        self._client = client
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._may: bool | None = None
        self._until = float("-inf")

    def demand(self) -> None:
        """Raises `CredentialsRefused` when we may not delete, `CallFailed` when that cannot be
        told."""
        with self._lock:
            if self._elapsed() >= self._until:
                self._may = self.ask(DELETE)
                self._until = self._elapsed() + (GRANTED if self._may else REFUSED)
            if self._may:
                return
        raise CredentialsRefused(
            f"{self._options.name} may not delete what it would launch",
            hint="apply deploy/kubernetes/role.yaml in its namespace; nothing is launched before",
        )

    def ask(self, right: Verb) -> bool:
        """True if these credentials have a right. Raises `CallFailed`."""
        resource, _, part = right.resource.partition("/")
        attributes = {
            "namespace": self._options.namespace,
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
            **({"subresource": part} if part else {}),
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._client.call("POST", _REVIEWS, body=body)
        return (answer.get("status") or {}).get("allowed") is True

    def missing(self) -> list[Verb]:
        """Return the rights that are not there. Raises `CallFailed`."""
        return [right for right in needed(self._options) if not self.ask(right)]
