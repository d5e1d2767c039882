"""Kinds of objects that the API knows, each with its published schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_CORE: Final = "io.k8s.api.core.v1."
_ALL: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """`schema` is a name in the published definitions; empty: any field is kept."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    schema: str = ""
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL
    custom: bool = False  # by a CustomResourceDefinition

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name in messages: `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """The kind in messages: `Job.batch`."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


def _core(
    kind: str, plural: str, short: str = "", *subresources: str, cluster: bool = False
) -> Kind:
    return Kind(
        kind=kind,
        plural=plural,
        schema=_CORE + kind,
        namespaced=not cluster,
        short=tuple(short.split()),
        subresources=subresources,
    )


def _of(
    api: str, kind: str, plural: str, short: str = "", *subs: str, cluster: bool = False
) -> Kind:
    """`api`: `batch/v1`."""
    group, _, version = api.partition("/")
    package = group.partition(".")[0]
    return Kind(
        kind=kind,
        plural=plural,
        group=group,
        version=version,
        schema=f"io.k8s.api.{package}.{version}.{kind}",
        namespaced=not cluster,
        short=tuple(short.split()),
        subresources=subs,
    )


NAMESPACES: Final = _core("Namespace", "namespaces", "ns", "status", cluster=True)
NODES: Final = _core("Node", "nodes", "no", "status", cluster=True)
PODS: Final = _core(
    "Pod", "pods", "po", "status", "log", "exec", "portforward", "attach", "eviction"
)
SECRETS: Final = _core("Secret", "secrets")
EVENTS: Final = _core("Event", "events", "ev")
RESOURCE_QUOTAS: Final = _core("ResourceQuota", "resourcequotas", "quota", "status")
SERVICE_ACCOUNTS: Final = _core("ServiceAccount", "serviceaccounts", "sa", "token")
LIMIT_RANGES: Final = _core("LimitRange", "limitranges", "limits")
VOLUME_CLAIMS: Final = _core("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "status")
JOBS: Final = _of("batch/v1", "Job", "jobs", "", "status")
NETWORK_POLICIES: Final = _of("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol")
RUNTIME_CLASSES: Final = _of("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", "", cluster=True)
ROLES: Final = _of("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDINGS: Final = _of("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLES: Final = _of(
    "rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", cluster=True
)
CLUSTER_ROLE_BINDINGS: Final = _of(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", cluster=True
)
DEFINITIONS: Final = Kind(
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    group="apiextensions.k8s.io",
    schema="io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    namespaced=False,
    short=("crd", "crds"),
    subresources=("status",),
)
VMIS: Final = Kind(
    kind="VirtualMachineInstance",
    plural="virtualmachineinstances",
    group="kubevirt.io",
    schema="v1.VirtualMachineInstance",
    short=("vmi", "vmis"),
    custom=True,
)
KUBEVIRT_STREAMS: Final = "subresources.kubevirt.io"

KINDS: Final = (
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    EVENTS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    _core("ConfigMap", "configmaps", "cm"),
    LIMIT_RANGES,
    VOLUME_CLAIMS,
    _core("Service", "services", "svc", "status"),
    JOBS,
    _of("batch/v1", "CronJob", "cronjobs", "cj", "status"),
    _of("apps/v1", "Deployment", "deployments", "deploy", "status"),
    _of("apps/v1", "ReplicaSet", "replicasets", "rs", "status"),
    _of("apps/v1", "StatefulSet", "statefulsets", "sts", "status"),
    _of("apps/v1", "DaemonSet", "daemonsets", "ds", "status"),
    _of("coordination.k8s.io/v1", "Lease", "leases"),
    NETWORK_POLICIES,
    _of("networking.k8s.io/v1", "Ingress", "ingresses", "ing", "status"),
    _of("networking.k8s.io/v1", "IngressClass", "ingressclasses", cluster=True),
    RUNTIME_CLASSES,
    _of("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "status"),
    _of("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "status"),
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    _of("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", cluster=True),
    _of("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", cluster=True),
    DEFINITIONS,
    VMIS,
)
