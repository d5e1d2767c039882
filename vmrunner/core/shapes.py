"""The machine and the container that a build wants, as far as they can be had ahead of it."""

from __future__ import annotations

from vmrunner.model import RUNC, RUNSC, BuildSpec, Shape, Spec, Trait


def machine(spec: BuildSpec) -> Spec:
    """Return a build's demands on a machine."""
    return Spec(
        cpus=spec.cpus,
        memory=spec.memory,
        disk=spec.disk,
        spot=spec.spot,
        image=spec.image,
        network=spec.network,
        needs=_needs(spec),
    )


def capacity(machine: Spec) -> Spec:
    """Return what of a machine a provider may have none of: not what is in it, or around it."""
    return Spec(cpus=machine.cpus, memory=machine.memory, disk=machine.disk, spot=machine.spot)


def _needs(spec: BuildSpec) -> frozenset[Trait]:
    """Return what it asks of who realises the container's image, beside what the machine tells."""
    asked = {
        Trait.DOCKER: spec.docker,
        Trait.PRIVILEGED: spec.privileged,
        Trait.GVISOR: spec.runtime == RUNSC,
        Trait.BOOTSTRAP: spec.bootstrap,
        Trait.PRIVATE_PULL: spec.registry_secret is not None,
    }
    return frozenset(trait for trait, said in asked.items() if said)


def container(spec: BuildSpec, *, log_bytes: int) -> Shape | None:
    """Return the container that a build wants; None: nothing is made ahead of such a one."""
    if spec.bootstrap or spec.runtime != RUNC:
        return None  # what another runtime froze was not tried
    return Shape(
        container=spec.container,
        runtime=spec.runtime,
        log_bytes=log_bytes,
        docker=spec.docker,
        privileged=spec.privileged,
    )
