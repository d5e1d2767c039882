"""The container images of a stage, in the builder: pulled, or made from Debian packages as
vmrunner's own builder makes them.

    containers.py kinds LIST   "pulled", "made", both, or nothing
    containers.py load LIST    bring all of them into Docker's store

LIST is the stage's containers.json: [{name, pull or null, suite, packages, command, env}, …].
Runs with the base's python3: the standard library alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# As vmrunner/images/local/rootfs.py leaves them out.
EXCLUDED = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
)
KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")


# Ubuntu's apt does not trust it, and without gpg mmdebstrap does not look for it.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def kinds(containers: list[dict[str, Any]]) -> str:
    return " ".join(sorted({"pulled" if c.get("pull") else "made" for c in containers}))


def pull(container: dict[str, Any]) -> list[list[str]]:
    """Commands, one after another."""
    wanted, name = container["pull"], container["name"]
    return [["docker", "pull", "--quiet", wanted], ["docker", "tag", wanted, name]]


def make(container: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Two commands: the first one's output is the second one's input."""
    root = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--keyring={KEYRING}"]
    root += [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED]
    root += [f"--dpkgopt=path-include={path}" for path in KEPT]
    root += ['--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"']
    if container["packages"]:
        root.append(f"--include={','.join(container['packages'])}")
    root.append('--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"')
    root += ["--format=tar", container["suite"], "-"]
    changes = [f"CMD [{', '.join(json.dumps(word) for word in container['command'])}]"]
    changes += [f"ENV {key}={json.dumps(value)}" for key, value in sorted(container["env"].items())]
    flags = [flag for change in changes for flag in ("--change", change)]
    return root, ["docker", "import", *flags, "-", container["name"]]


def load(container: dict[str, Any]) -> None:
    """Raises CalledProcessError when either end fails."""
    if container.get("pull"):
        for argv in pull(container):
            subprocess.run(argv, check=True)
        return
    root, into = make(container)
    with subprocess.Popen(root, stdout=subprocess.PIPE) as source:
        subprocess.run(into, stdin=source.stdout, check=True)
    if source.returncode:
        raise subprocess.CalledProcessError(source.returncode, root)


def main(what: str, path: str) -> None:
    containers = json.loads(Path(path).read_text())
    if what == "kinds":
        print(kinds(containers))
        return
    for container in containers:
        print(f"container image {container['name']}", flush=True)
        load(container)


if __name__ == "__main__":
    main(*sys.argv[1:])
