"""The machine and the container that a build wants, as far as they can be had ahead of it."""

from __future__ import annotations

from vmrunner.model import RUNC, BuildSpec, Shape, Spec


def machine(spec: BuildSpec) -> Spec:
    """Return a build's demands on a machine."""
    return Spec(
        cpus=spec.cpus,
        memory=spec.memory,
        disk=spec.disk,
        spot=spec.spot,
        image=spec.image,
        network=spec.network,
    )


def container(spec: BuildSpec, *, log_bytes: int) -> Shape | None:
    """Return the container that can be started before the build is there; None: none can."""
    if spec.bootstrap or spec.docker or spec.privileged or spec.runtime != RUNC:
        return None  # what another runtime froze was not tried
    return Shape(container=spec.container, runtime=spec.runtime, log_bytes=log_bytes)
