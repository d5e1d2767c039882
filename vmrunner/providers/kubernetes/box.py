"""The box of a pod: its container is the build's, started by the cluster, with vmrunner's own
beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vmrunner.errors import BadOrder
from vmrunner.model import BuildSpec, NetworkPolicy, Shape, Trait


class PodBox:
    """`Box` of a pod. `probed`: network none is kept where a probe saw the policy hold; offers and
    creates refuse it where none did."""

    def __init__(self, *, probed: bool) -> None:
        kept = {Trait.PRIVATE_PULL} | ({Trait.NO_NETWORK} if probed else set())
        self.keeps = frozenset(kept)

    def ahead(self, shape: Shape, network: NetworkPolicy) -> None:  # noqa: ARG002
        return None

    def job_fields(self, spec: BuildSpec) -> Mapping[str, object]:  # noqa: ARG002
        return {"unit": True}

    def inside(
        self,
        command: Sequence[str],  # noqa: ARG002
        *,
        held: bool,
        terminal: str,
    ) -> list[str]:
        """Raises BadOrder: vmrunner's container neither sees nor enters the build's."""
        field = "tty: true" if terminal else f"container: {'held' if held else 'true'}"
        raise BadOrder(
            f"{field}: nothing enters the container of a pod, where vmrunner is in another one",
            hint="use `sandbox exec` without a terminal, or a provider that starts VMs",
        )
