"""The table of a Kubernetes provider in the configuration."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from vmrunner.providers.settings import Bytes, ProviderSettings


class KubernetesSettings(ProviderSettings):
    """VMs of KubeVirt, or pods behind a runtime class, in one namespace. Credentials come from the
    kubeconfig, or in a cluster from the service account."""

    kind: Literal["kubernetes"]
    runs: Literal["vmi", "pod"] | None = Field(
        default=None,
        description="vmi: VMs of KubeVirt, with Docker in them (default). pod: the container's "
        "image itself, behind the wall of a runtime class.",
    )
    context: str | None = Field(default=None, description="Of the kubeconfig; default: its own.")
    kubeconfig: str | None = Field(
        default=None, description="A path; default: KUBECONFIG, then ~/.kube/config."
    )
    namespace: str | None = Field(default=None, description="One for each installation: vmrunner.")
    runtime_class: str | None = Field(default=None, description="For pods: kata-qemu, gvisor, …")
    wall: Literal["none"] | None = Field(
        default=None, description="none: pods without a runtime class share the node's kernel."
    )
    image: str | dict[str, Any] | None = Field(
        default=None,
        description="For VMs: a containerDisk by its digest, or "
        "{ data_volume = { claim, size, storage_class } }, which is cloned.",
    )
    unit_image: str | None = Field(default=None, description="For pods: by its digest.")
    sizes: tuple[str, ...] | None = Field(
        default=None, description="CPUs x memory, in the order in which to try them: 2x4GiB."
    )
    disk: Bytes | None = Field(default=None, description="A pod's room for files; 20 GiB.")
    dns: tuple[str, ...] | None = Field(
        default=None, description="Whom pods ask for names; default: 9.9.9.9."
    )
    node_selector: dict[str, str] | None = None
    tolerations: tuple[dict[str, Any], ...] | None = None
    priority_class: str | None = None
    usd_hour: dict[str, float] | None = Field(
        default=None, description="By size; without it the cost is unknown."
    )
    network_policy: Literal["probe", "never"] | None = Field(
        default=None,
        description="probe: network none is kept where a probe saw a policy hold (default).",
    )
    max_instances: int | None = Field(default=None, ge=1)

    harmless: ClassVar[frozenset[str]] = ProviderSettings.harmless | {"sizes", "disk"}
