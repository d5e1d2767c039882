"""The way from a VM's root into the build's container, while it runs and after its end."""

from __future__ import annotations

from typing import Final

# $1: "held" when the build has ended. $2: docker's option for a terminal, or nothing. A container
# that has ended is started again, with its file system, mounts, network and limits, and a main
# process that does nothing.
_SCRIPT: Final = """
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
terminal=$2
shift 2
exec docker exec -i $terminal -w /work vmrunner-build "$@"
"""
#: The build's environment, then what was asked for.
_INSIDE: Final = '. /vmrunner/env; exec "$@"'
_SHELL: Final = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")


def words(command: list[str], *, held: bool, terminal: bool) -> list[str]:
    """The command for the VM. Without `command` it is a shell."""
    inside = ["sh", "-c", _INSIDE, "sh", *(command or _SHELL)]
    given = ("held" if held else "", "-t" if terminal else "")
    return ["sh", "-c", _SCRIPT, "container", *given, *inside]
