"""The machine and the container that a build wants, as far as they can be had ahead of it."""

from __future__ import annotations

from vmrunner.model import RUNC, RUNSC, BuildSpec, Shape, Spec, Trait


def machine(spec: BuildSpec) -> Spec:
    """The machine that a build requires."""
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
    """The part of a machine of which a cloud may have none left: its size and market, not its image
    or network."""
    return Spec(cpus=machine.cpus, memory=machine.memory, disk=machine.disk, spot=machine.spot)


def _needs(spec: BuildSpec) -> frozenset[Trait]:
    """The traits that a build requires of the box, beside those that the machine tells."""
    needs = {
        Trait.DOCKER: spec.docker,
        Trait.PRIVILEGED: spec.privileged,
        Trait.GVISOR: spec.runtime == RUNSC,
        Trait.BOOTSTRAP: spec.bootstrap,
        Trait.PRIVATE_PULL: spec.registry_secret is not None,
    }
    return frozenset(trait for trait, needed in needs.items() if needed)


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
