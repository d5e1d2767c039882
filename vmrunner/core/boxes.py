"""Boxes: what realises the image of a build's container, and what the supervisor beside it is told.

Docker in the VM is the one that all our VMs have. Where the provider starts the image itself, as a
unit (`providers.port.StartsUnits`), it brings a box of its own, which keeps fewer promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from vmrunner.model import BuildSpec, NetworkPolicy, Shape, Trait

# $1: "held" when the build has ended. $2: a name for the terminal, or nothing. A container that has
# ended is started again, with its file system, mounts, network and limits, and a main process that
# does nothing.
#
# Docker lets live what runs at a terminal that is gone. So all of it is hung up here: it has the
# terminal's name in its environment. For a signal the shell ends a `wait`, and no command.
_ENTER: Final = """
status=$(docker inspect --format '{{.State.Status}}' vmrunner-build 2>/dev/null) || status=absent
if [ "$status $1" = 'exited held' ]; then
  printf '%s\\n' 'exec 3<>/vmrunner/answers' 'while :; do read -r _ <&3; done' \
    >/run/vmrunner/box/driver.sh
  docker start vmrunner-build >/dev/null && status=running
fi
if [ "$status" != running ]; then
  echo "vmrunner: the build's container is $status" >&2
  exit 125
fi
terminal=${2:+VMRUNNER_TERMINAL=$2}
shift 2
[ "$terminal" ] || exec docker exec -i -w /work vmrunner-build "$@"
hang_up() {
  for environ in $(grep -lszxF "$terminal" /proc/[0-9]*/environ); do
    pid=${environ#/proc/}
    kill -s HUP "${pid%/environ}"
    kill -s CONT "${pid%/environ}"
  done 2>/dev/null
}
trap hang_up HUP
exec 3<&0
docker exec -i -t -e "$terminal" -w /work vmrunner-build "$@" <&3 3<&- &
wait "$!"
exit
"""
#: Lets the supervisor know the process of a container that was started again: of the one that it
#: knows the ports are gone.
KNOWN_AGAIN: Final = """
pid=$(docker inspect --format '{{.State.Pid}}' vmrunner-build) || exit
printf '%s' "$pid" >/run/vmrunner/container.again
mv /run/vmrunner/container.again /run/vmrunner/container
"""
#: The build's environment, then what was asked for.
_INSIDE: Final = '. /vmrunner/env; exec "$@"'
SHELL: Final = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")


class Box(Protocol):
    """A realiser of container images, and how the supervisor beside it is spoken to."""

    @property
    def keeps(self) -> frozenset[Trait]:
        """The traits that a build may ask for."""

    def ahead(self, shape: Shape, network: NetworkPolicy) -> Mapping[str, object] | None:
        """The supervisor's instruction to make a container before the build is known; None: the
        container exists already."""

    def job_fields(self, spec: BuildSpec) -> Mapping[str, object]:
        """Fields about the container in the job that the supervisor gets with the build's steps."""

    def inside(self, command: Sequence[str], *, held: bool, terminal: str) -> list[str]:
        """The command line for sshd's root that runs `command`, or a shell where it is empty, in
        the container. `held`: the build has ended. `terminal`: a name that no other terminal has,
        or "" without one; all that runs at it is hung up with it."""


class DockerBox:
    """Docker in the VM, which makes a container of the image."""

    keeps: Final = frozenset(Trait)

    def ahead(self, shape: Shape, network: NetworkPolicy) -> Mapping[str, object]:
        return {
            "container": shape.container,
            "runtime": shape.runtime,
            "network": network.inside.value,
            "log_bytes": shape.log_bytes,
        }

    def job_fields(self, spec: BuildSpec) -> Mapping[str, object]:
        return {
            "container": spec.container,
            "runtime": spec.runtime,
            "docker": spec.docker,
            "privileged": spec.privileged,
            "network": spec.network.inside.value,
        }

    def inside(self, command: Sequence[str], *, held: bool, terminal: str) -> list[str]:
        words = ["sh", "-c", _INSIDE, "sh", *(command or SHELL)]
        return ["sh", "-c", _ENTER, "container", "held" if held else "", terminal, *words]


DOCKER: Final = DockerBox()
